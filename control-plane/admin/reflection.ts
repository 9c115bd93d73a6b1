// grpc.reflection.v1. Of our own, because files are sent as they were compiled: the usual package writes them anew and loses custom options.
import { type DescFile, type DescService, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import type {
  ServerReflection,
  ServerReflectionRequest,
  ServerReflectionResponseSchema,
} from "../../proto/gen/grpc/reflection/v1/reflection_pb.ts";
import type { Handlers } from "../../proto/grpc.ts";

type Response = MessageInitShape<typeof ServerReflectionResponseSchema>;
type Answer = NonNullable<Response["messageResponse"]>;

/** The handlers to register, for these services. */
export function reflectionHandlers(services: readonly DescService[]): Handlers<typeof ServerReflection> {
  const files = new Map<string, DescFile>();
  const collect = (file: DescFile): void => {
    if (files.has(file.proto.name)) return;
    files.set(file.proto.name, file);
    file.dependencies.forEach(collect);
  };
  for (const { file } of services) collect(file);
  const symbols = new Map([...files.values()].flatMap((file) => symbolsOf(file).map((name) => [name, file] as const)));

  function answer({ messageRequest: { case: what, value } }: ServerReflectionRequest): Answer {
    switch (what) {
      case "listServices":
        return { case: "listServicesResponse", value: { service: services.map(({ typeName }) => ({ name: typeName })) } };
      case "fileByFilename":
        return fileAnswer(files.get(value), value);
      case "fileContainingSymbol":
        return fileAnswer(symbols.get(value), value);
      case "fileContainingExtension":
        return fileAnswer(
          [...files.values()].find((file) =>
            file.extensions.some((one) => one.extendee.typeName === value.containingType && one.number === value.extensionNumber),
          ),
          `${value.containingType} ${value.extensionNumber}`,
        );
      case "allExtensionNumbersOfType": {
        const all = [...files.values()].flatMap(({ extensions }) => extensions);
        const extensionNumber = all.filter(({ extendee }) => extendee.typeName === value).map(({ number }) => number);
        return { case: "allExtensionNumbersResponse", value: { baseTypeName: value, extensionNumber } };
      }
      default:
        return failure(status.INVALID_ARGUMENT, "nothing was asked");
    }
  }

  function fileAnswer(file: DescFile | undefined, wanted: string): Answer {
    if (file === undefined) return failure(status.NOT_FOUND, `there is no "${wanted.slice(0, 200)}"`);
    const needed = new Map<string, DescFile>();
    const need = (one: DescFile): void => {
      if (needed.has(one.proto.name)) return;
      needed.set(one.proto.name, one);
      one.dependencies.forEach(need);
    };
    need(file);
    const fileDescriptorProto = [...needed.values()].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
    return { case: "fileDescriptorResponse", value: { fileDescriptorProto } };
  }

  return {
    serverReflectionInfo(call) {
      call.on("data", (request: ServerReflectionRequest) => {
        // Who asks and does not read is not answered any further: grpc-js would keep it all.
        if (!call.write({ validHost: request.host, originalRequest: request, messageResponse: answer(request) })) {
          call.pause();
          call.once("drain", () => call.resume());
        }
      });
      call.on("end", () => call.end());
      call.on("error", () => undefined);
    },
  };
}

function failure(errorCode: number, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}

function symbolsOf(file: DescFile): string[] {
  const messages = file.messages.flatMap(function nested(message): string[] {
    return [message.typeName, ...message.nestedEnums.map(({ typeName }) => typeName), ...message.nestedMessages.flatMap(nested)];
  });
  const services = file.services.flatMap(({ typeName, methods }) => [
    typeName,
    ...methods.map(({ name }) => `${typeName}.${name}`),
  ]);
  return [
    ...messages,
    ...services,
    ...file.enums.map(({ typeName }) => typeName),
    ...file.extensions.map(({ typeName }) => typeName),
  ];
}
