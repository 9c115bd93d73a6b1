// Joins the generated services (protobuf-es) to grpc-js: a server definition, typed handlers, a typed client,
// and a way to send bytes that were encoded once for many streams.
import { isIP } from "node:net";
import { checkServerIdentity, createSecureContext, type PeerCertificate } from "node:tls";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";

/** A message that is already encoded; handlers of streaming methods may write it in place of a message. */
export class EncodedMessage {
  readonly bytes: Buffer;
  constructor(bytes: Uint8Array) {
    this.bytes = asBuffer(bytes);
  }
}

/** Encodes once, to be written to any number of streams. */
export function encode<D extends DescMessage>(schema: D, init: MessageInitShape<D>): EncodedMessage {
  return new EncodedMessage(toBinary(schema, create(schema, init)));
}

type Input<M> = M extends { input: infer I extends DescMessage } ? MessageShape<I> : never;
type Output<M> = M extends { output: infer O extends DescMessage } ? MessageInitShape<O> : never;
type Received<M> = M extends { output: infer O extends DescMessage } ? MessageShape<O> : never;
type Sent<M> = M extends { input: infer I extends DescMessage } ? MessageInitShape<I> : never;
type Kind<M> = M extends { methodKind: infer K } ? K : never;

type Handler<M> =
  Kind<M> extends "unary"
    ? (request: Input<M>, call: grpc.ServerUnaryCall<Input<M>, Output<M>>) => Promise<Output<M>>
    : Kind<M> extends "server_streaming"
      ? (call: grpc.ServerWritableStream<Input<M>, Output<M> | EncodedMessage>) => void
      : (call: grpc.ServerDuplexStream<Input<M>, Output<M> | EncodedMessage>) => void;

/** One handler per method. A unary handler throws `{ code, details, metadata? }` (grpc.ServiceError) to fail. */
export type Handlers<S extends DescService> = { [K in keyof S["method"]]: Handler<S["method"][K]> };

type ClientMethod<M> =
  Kind<M> extends "unary"
    ? (request: Sent<M>, options?: grpc.CallOptions) => Promise<Received<M>>
    : Kind<M> extends "server_streaming"
      ? (request: Sent<M>, options?: grpc.CallOptions) => grpc.ClientReadableStream<Received<M>>
      : (options?: grpc.CallOptions) => grpc.ClientDuplexStream<Sent<M>, Received<M>>;

/** A typed client; `close()` ends its channel. */
export type Client<S extends DescService> = { [K in keyof S["method"]]: ClientMethod<S["method"][K]> } & Disposable & {
    close(): void;
  };

/** Registers a service with its handlers. */
export function addService<S extends DescService>(server: grpc.Server, service: S, handlers: Handlers<S>): void {
  const implementation: grpc.UntypedServiceImplementation = {};
  for (const method of service.methods) {
    const handler = handlers[method.localName as keyof Handlers<S>] as (...args: unknown[]) => unknown;
    implementation[method.localName] = method.methodKind === "unary" ? unary(handler) : (handler as grpc.UntypedHandleCall);
  }
  server.addService(definitionOf(service), implementation);
}

/** What a client shows and wants over TLS, all in PEM. */
export interface Tls {
  /** Whom it trusts. Default: the public authorities that come with Node.js. */
  readonly authority?: string | undefined;
  /** Of its own, with the key; default: none. */
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  /** Who the server must be, beyond having a certificate of that authority. Default: who the address says. */
  readonly checkServer?: (host: string, certificate: PeerCertificate) => Error | undefined;
}

/** Opens a client. Connects lazily; every call must carry a deadline or be a stream its owner ends. */
export function createClient<S extends DescService>(
  service: S,
  address: string,
  security: grpc.ChannelCredentials | Tls,
  options: grpc.ChannelOptions = {},
): Client<S> {
  const channel = openChannel(address, security, options);
  const methods: Record<string, unknown> = { close: () => channel.close(), [Symbol.dispose]: () => channel.close() };
  const definition = definitionOf(service);
  for (const method of service.methods) methods[method.localName] = clientMethod(channel, method, definition);
  return methods as Client<S>;
}

/** What a client is made of. Throws when certificate and key are none, or of different pairs. */
export function openChannel(
  address: string,
  security: grpc.ChannelCredentials | Tls,
  options: grpc.ChannelOptions = {},
): grpc.Client {
  if (security instanceof grpc.ChannelCredentials) return new grpc.Client(address, security, options);
  const { authority, certificate, key, checkServer = checkServerIdentity } = security;
  const host = address.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  // An intermediate authority may be all there is to trust.
  const context = createSecureContext({ ca: authority, cert: certificate, key, allowPartialTrustChain: true });
  const checking = { checkServerIdentity: (_name: string, shown: PeerCertificate) => checkServer(host, shown) };
  // grpc-js names whatever it connects to in SNI; Node.js refuses IP addresses there (RFC 6066, section 3).
  const naming = isIP(host) === 0 ? {} : { "grpc.ssl_target_name_override": "vmcp.invalid" };
  return new grpc.Client(address, grpc.credentials.createFromSecureContext(context, checking), { ...options, ...naming });
}

function clientMethod(channel: grpc.Client, method: DescMethod, definition: grpc.ServiceDefinition): unknown {
  const { path, requestSerialize, responseDeserialize } = definition[method.localName] as grpc.MethodDefinition<unknown, unknown>;
  if (method.methodKind === "unary") {
    return (request: unknown, options: grpc.CallOptions = {}) =>
      new Promise((resolve, reject) => {
        channel.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, options, (error, response) =>
          error ? reject(error) : resolve(response),
        );
      });
  }
  if (method.methodKind === "server_streaming") {
    return (request: unknown, options: grpc.CallOptions = {}) =>
      channel.makeServerStreamRequest(path, requestSerialize, responseDeserialize, request, options);
  }
  return (options: grpc.CallOptions = {}) => channel.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, options);
}

function definitionOf(service: DescService): grpc.ServiceDefinition {
  const definition: Record<string, grpc.MethodDefinition<unknown, unknown>> = {};
  for (const method of service.methods) {
    definition[method.localName] = {
      path: `/${service.typeName}/${method.name}`,
      requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
      responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
      requestSerialize: serializer(method.input),
      requestDeserialize: (bytes) => fromBinary(method.input, bytes),
      responseSerialize: serializer(method.output),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    };
  }
  return definition;
}

function serializer(schema: DescMessage): (value: unknown) => Buffer {
  return (value) =>
    value instanceof EncodedMessage
      ? value.bytes
      : asBuffer(toBinary(schema, create(schema, value as MessageInitShape<DescMessage>)));
}

// grpc-js calls Buffer methods on what a serializer returns, so a plain Uint8Array crashes it; this wraps without a copy.
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function unary(handler: (...args: unknown[]) => unknown): grpc.handleUnaryCall<unknown, unknown> {
  return async (call, callback) => {
    try {
      callback(null, await handler(call.request, call));
    } catch (error) {
      callback(error as grpc.ServiceError);
    }
  };
}
