// Reads an HTTP API that may be slow, hung or endless: only GET, every wait with a deadline, every size with a bound.
import { Pool } from "undici";
import { ProviderError } from "./provider.ts";

export interface ReadOptions {
  readonly path: string;
  readonly signal: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly status: number;
  /** Names are lower case. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

export interface HttpReader extends AsyncDisposable {
  /** The whole answer, whatever its status. Throws ProviderError, or the signal's reason. */
  read(options: ReadOptions): Promise<Answer>;
  /**
   * The lines of an answer with status 200 while they come; another status gives the whole answer. What stands after the last line
   * break is no line. Whoever takes lines ends the stream by leaving the loop, or with the signal.
   */
  readLines(options: ReadOptions): Promise<Answer | AsyncIterable<string>>;
}

export interface HttpReaderOptions {
  /** http or https. */
  readonly origin: string;
  /** For messages: what is read, and where. */
  readonly what: string;
  readonly connect?: Pool.Options["connect"];
  /** Whole answer, or the head of a stream, milliseconds. Default 10,000. */
  readonly answerMs?: number;
  /** Of a whole answer. Default 32 MiB: thousands of objects. */
  readonly answerBytesMax?: number;
  /** Of one line. Default 4 MiB: no API that is read here keeps larger objects. */
  readonly lineBytesMax?: number;
}

const connectMs = 3_000;
// One stream per kind of object, and lists beside them.
const connectionsMax = 16;

/** Nothing is opened before the first request; disposing drops every connection. */
export function createHttpReader(options: HttpReaderOptions): HttpReader {
  const { origin, what, answerMs = 10_000, answerBytesMax = 32 * 1024 * 1024, lineBytesMax = 4 * 1024 * 1024 } = options;
  const pool = new Pool(origin, {
    connect: typeof options.connect === "object" ? { timeout: connectMs, ...options.connect } : { timeout: connectMs },
    connections: connectionsMax,
    pipelining: 1,
    keepAliveTimeout: 4_000,
    // Deadlines are ours.
    headersTimeout: 0,
    bodyTimeout: 0,
  });

  async function open({ path, signal, headers = {} }: ReadOptions) {
    signal.throwIfAborted();
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new ProviderError(`${what} did not answer in ${answerMs} ms`)), answerMs);
    const either = AbortSignal.any([signal, late.signal]);
    const done = (): void => clearTimeout(timer);
    const failed = (error: unknown): never => {
      done();
      if (either.aborted) throw either.reason;
      throw error instanceof ProviderError ? error : new ProviderError(`${what}: ${reasonOf(error)}`, { cause: error });
    };
    const headed = { accept: "application/json", ...headers };
    const response = await pool.request({ path, method: "GET", headers: headed, signal: either }).catch(failed);
    return { response, done, failed };
  }

  async function drain({ response, done, failed }: Awaited<ReturnType<typeof open>>): Promise<Answer> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    try {
      for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
        bytes += chunk.length;
        if (bytes > answerBytesMax) throw new ProviderError(`${what} answers with more than ${answerBytesMax} bytes`);
        chunks.push(chunk);
      }
    } catch (error) {
      failed(error);
    }
    done();
    return { status: response.statusCode, headers: response.headers, text: Buffer.concat(chunks).toString("utf8") };
  }

  async function* linesOf({ response, failed }: Awaited<ReturnType<typeof open>>): AsyncIterable<string> {
    let parts: Uint8Array[] = [];
    let bytes = 0;
    try {
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        let from = 0;
        for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
          yield Buffer.concat([...parts, chunk.subarray(from, end)]).toString("utf8");
          parts = [];
          bytes = 0;
          from = end + 1;
        }
        const rest = chunk.subarray(from);
        bytes += rest.length;
        if (bytes > lineBytesMax) throw new ProviderError(`${what} sends a line of more than ${lineBytesMax} bytes`);
        if (rest.length > 0) parts.push(rest);
      }
    } catch (error) {
      failed(error);
    }
  }

  return {
    read: async (request) => drain(await open(request)),
    async readLines(request) {
      const opened = await open(request);
      if (opened.response.statusCode !== 200) return drain(opened);
      opened.done();
      return linesOf(opened);
    },
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
}

/** Throws ProviderError when the text is no JSON. */
export function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ProviderError(`${what} answers with what is no JSON`, { cause: error });
  }
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such socket; does it run?",
  ECONNREFUSED: "nothing listens there; does it run?",
  EACCES: "this user may not open the socket",
  EPERM: "this user may not open the socket",
  ENOTFOUND: "its host name is unknown",
  ECONNRESET: "the connection broke",
  UND_ERR_SOCKET: "the connection broke",
  UND_ERR_CONNECT_TIMEOUT: `no connection in ${connectMs} ms`,
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is for another name",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is not vouched for by the authority that was given",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is not vouched for by the authority that was given",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate is not vouched for by the authority that was given",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate is not vouched for by the authority that was given",
  CERT_HAS_EXPIRED: "its certificate has expired",
};

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return reasons[code ?? ""] ?? (message || code || "it can't be read");
}
