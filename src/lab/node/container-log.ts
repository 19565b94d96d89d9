/**
 * Container output: read from the container's FIFOs, written as the CRI log format
 * ("<RFC 3339 time> <stdout|stderr> <F|P> <line>", kubernetes/design-proposals "kubelet-cri-logging"), read back for kubectl logs.
 */
import {
  closeSync,
  constants,
  createReadStream,
  existsSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  watch,
  readSync,
  writeSync,
} from 'node:fs';
import { Socket } from 'node:net';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';

/** kubelet's containerLogMaxSize; one older file is kept. */
const maxLogBytes = 10 << 20;
/** A longer line is written in parts, marked P. */
const maxLineBytes = 16 << 10;

/** Copies both FIFOs into the log until the container and everything that inherited its output has ended. */
export class LogWriter {
  readonly #path: string;
  #fd: number;
  #size: number;
  readonly #sockets: Socket[] = [];
  readonly done: Promise<void>;

  constructor(path: string, fifos: { readonly stdout: string; readonly stderr: string }) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    this.#path = path;
    this.#fd = openSync(path, 'a', 0o640);
    this.#size = statSync(path).size;
    const streams = [this.#follow(fifos.stdout, 'stdout'), this.#follow(fifos.stderr, 'stderr')];
    this.done = Promise.all(streams).then(() => {
      closeSync(this.#fd);
      rmSync(fifos.stdout, { force: true });
      rmSync(fifos.stderr, { force: true });
    });
  }

  /** Stops reading; what the container still holds open stays in the FIFO for the next reader. */
  stop(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #follow(fifo: string, name: 'stdout' | 'stderr'): Promise<void> {
    if (!existsSync(fifo)) return Promise.resolve();
    const fd = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    const socket = new Socket({ fd, readable: true, writable: false });
    this.#sockets.push(socket);
    let rest: Buffer = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      const time = new Date().toISOString();
      let data = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
      for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10)) {
        this.#write(time, name, 'F', data.subarray(0, end));
        data = data.subarray(end + 1);
      }
      for (; data.length >= maxLineBytes; data = data.subarray(maxLineBytes)) {
        this.#write(time, name, 'P', data.subarray(0, maxLineBytes));
      }
      rest = data;
    });
    return new Promise((resolve) => {
      socket.on('error', () => socket.destroy());
      socket.on('close', () => {
        if (rest.length > 0) this.#write(new Date().toISOString(), name, 'P', rest);
        resolve();
      });
    });
  }

  #write(time: string, stream: string, tag: 'F' | 'P', line: Buffer): void {
    if (this.#size > maxLogBytes) this.#rotate();
    // The time has nine decimals, as containerd writes it.
    const head = Buffer.from(`${time.replace('Z', '000000Z')} ${stream} ${tag} `);
    this.#size += writeSync(this.#fd, Buffer.concat([head, line, newline]));
  }

  #rotate(): void {
    closeSync(this.#fd);
    renameSync(this.#path, `${this.#path}.1`);
    this.#fd = openSync(this.#path, 'a', 0o640);
    this.#size = 0;
  }
}
const newline = Buffer.from('\n');

export interface LogQuery {
  readonly follow: boolean;
  readonly timestamps: boolean;
  readonly tailLines?: number;
  readonly sinceMs?: number;
  readonly limitBytes?: number;
}

/** Writes the log's text to `write`; with follow, goes on until `ended` says that nothing more comes, or the signal is aborted. */
export async function readLog(
  path: string,
  query: LogQuery,
  write: (text: string) => void,
  ended: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  const limited = limitOutput(write, query.limitBytes ?? Infinity);
  const format = (line: string): string | undefined => formatLine(line, query);
  const old = [`${path}.1`, path].filter((file) => existsSync(file));
  let offset = existsSync(path) ? statSync(path).size : 0;
  const lines: string[] = [];
  for (const file of old) {
    const size = file === path ? offset : undefined;
    if (size === 0) continue;
    for await (const line of createInterface({
      input: createReadStream(file, size === undefined ? {} : { end: size - 1 }),
    })) {
      lines.push(line);
      if (query.tailLines !== undefined && lines.length > query.tailLines) lines.shift();
    }
  }
  for (const line of lines) limited(format(line));
  if (!query.follow) return;
  for await (const _ of changes(path, ended, signal)) {
    const { size, text } = readFrom(path, offset);
    const end = text.lastIndexOf('\n') + 1;
    for (const line of text.slice(0, end).split('\n').slice(0, -1)) limited(format(line));
    offset = size - Buffer.byteLength(text.slice(end));
  }
}

function readFrom(path: string, offset: number): { size: number; text: string } {
  const size = existsSync(path) ? statSync(path).size : 0;
  const start = size < offset ? 0 : offset; // rotated
  if (size === start) return { size, text: '' };
  const bytes = Buffer.alloc(size - start);
  const fd = openSync(path, 'r');
  try {
    const length = readSyncFully(fd, bytes, start);
    return { size: start + length, text: bytes.subarray(0, length).toString('utf8') };
  } finally {
    closeSync(fd);
  }
}

/** Yields once per change, and a last time after `ended`. A slow poll backs the notification up. */
async function* changes(path: string, ended: () => boolean, signal: AbortSignal): AsyncGenerator<void> {
  let wake: () => void = () => undefined;
  const watcher = existsSync(path) ? watch(path, () => wake()) : undefined;
  watcher?.on('error', () => undefined);
  const onAbort = (): void => wake();
  signal.addEventListener('abort', onAbort);
  try {
    for (;;) {
      const last = ended();
      yield;
      if (last || signal.aborted) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 500);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  } finally {
    watcher?.close();
    signal.removeEventListener('abort', onAbort);
  }
}

function formatLine(line: string, query: LogQuery): string | undefined {
  const [time, stream, tag] = line.split(' ', 3);
  if (time === undefined || stream === undefined || tag === undefined) return undefined;
  if (query.sinceMs !== undefined && Date.parse(time) < query.sinceMs) return undefined;
  const text = line.slice(time.length + stream.length + tag.length + 3);
  return `${query.timestamps ? `${time} ` : ''}${text}${tag === 'F' ? '\n' : ''}`;
}

function limitOutput(write: (text: string) => void, limitBytes: number): (text: string | undefined) => void {
  let left = limitBytes;
  return (text) => {
    if (text === undefined || left <= 0) return;
    const bytes = Buffer.from(text);
    write(bytes.length <= left ? text : bytes.subarray(0, left).toString('utf8'));
    left -= bytes.length;
  };
}

function readSyncFully(fd: number, bytes: Buffer, position: number): number {
  let length = 0;
  while (length < bytes.length) {
    const read = readSync(fd, bytes, length, bytes.length - length, position + length);
    if (read === 0) break;
    length += read;
  }
  return length;
}
