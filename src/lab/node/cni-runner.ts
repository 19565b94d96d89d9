/**
 * Runs a chain of CNI plugins as a container runtime does (CNI specification, "Section 3: Execution of Network
 * Configurations"): ADD in order with prevResult handed on, DEL in reverse, CHECK in order. The caller's process is in the
 * node's network namespace, and so are the plugins.
 */
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../core/error.ts';
import { pluginInput, versionHasCheck, type NetworkList, type RuntimeCapabilities } from './cni-config.ts';

export interface CniRunnerOptions {
  /** Directories that are searched in this order: CNI_PATH. */
  readonly binDirs: readonly string[];
  /** Environment of every plugin beside the CNI_ variables. */
  readonly env: Readonly<Record<string, string>>;
  /** One plugin call; a plugin that takes longer is killed. */
  readonly timeoutMs: number;
}

/** One interface of one sandbox. */
export interface CniAttachmentRequest {
  readonly containerId: string;
  /** Path of the pod's netns; DEL may go without when it is gone. */
  readonly netns?: string;
  readonly ifName: string;
  /** CNI_ARGS, in this order. */
  readonly args: Readonly<Record<string, string>>;
  readonly runtime?: RuntimeCapabilities;
}

type Command = 'ADD' | 'DEL' | 'CHECK';

export class CniRunner {
  readonly #options: CniRunnerOptions;

  constructor(options: CniRunnerOptions) {
    this.#options = options;
  }

  /** The last plugin's result. A failure leaves what was made so far: call {@link del}. */
  async add(list: NetworkList, request: CniAttachmentRequest): Promise<unknown> {
    let prevResult: unknown;
    for (const plugin of list.plugins) {
      const input = pluginInput(list, plugin, { prevResult, runtime: request.runtime });
      prevResult = await this.#run('ADD', plugin.type, input, request);
    }
    return prevResult;
  }

  /** Throws the first failure, after which no earlier plugin was called: DEL is repeated until it succeeds. */
  async del(list: NetworkList, request: CniAttachmentRequest, cachedResult: unknown): Promise<void> {
    const prevResult = versionHasCheck(list.cniVersion) ? cachedResult : undefined;
    for (const plugin of list.plugins.toReversed()) {
      await this.#run('DEL', plugin.type, pluginInput(list, plugin, { prevResult, runtime: request.runtime }), request);
    }
  }

  /** Throws when a plugin finds the attachment damaged. Does nothing where the configuration rules CHECK out. */
  async check(list: NetworkList, request: CniAttachmentRequest, cachedResult: unknown): Promise<void> {
    if (list.disableCheck || !versionHasCheck(list.cniVersion)) return;
    for (const plugin of list.plugins) {
      const input = pluginInput(list, plugin, { prevResult: cachedResult, runtime: request.runtime });
      await this.#run('CHECK', plugin.type, input, request);
    }
  }

  async #run(command: Command, type: string, input: object, request: CniAttachmentRequest): Promise<unknown> {
    const context = `plugin type="${type}" failed (${command.toLowerCase()})`;
    const ended = await execPlugin(this.#find(type, context), JSON.stringify(input), {
      env: { ...this.#options.env, ...this.#cniEnvironment(command, request) },
      timeoutMs: this.#options.timeoutMs,
    });
    if (ended.timedOut) throw cniFailed(context, `no answer within ${this.#options.timeoutMs} ms`);
    if (ended.exitCode !== 0) throw cniFailed(context, explainFailure(ended));
    if (command !== 'ADD') return undefined;
    try {
      return JSON.parse(ended.stdout) as unknown;
    } catch (cause) {
      throw cniFailed(context, `it printed no JSON result: ${shorten(ended.stdout)}`, cause);
    }
  }

  #cniEnvironment(command: Command, request: CniAttachmentRequest): Record<string, string> {
    return {
      CNI_COMMAND: command,
      CNI_CONTAINERID: request.containerId,
      CNI_NETNS: request.netns ?? '',
      CNI_IFNAME: request.ifName,
      CNI_ARGS: Object.entries(request.args)
        .map(([key, value]) => `${key}=${value}`)
        .join(';'),
      CNI_PATH: this.#options.binDirs.join(':'),
    };
  }

  #find(type: string, context: string): string {
    for (const dir of this.#options.binDirs) {
      const path = join(dir, type);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        continue;
      }
    }
    const dirs = this.#options.binDirs.join(', ');
    throw cniFailed(context, `failed to find plugin "${type}" in path [${dirs}]`);
  }
}

interface PluginExit {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly timedOut: boolean;
}

/** A plugin that prints more is broken; the rest is dropped. */
const maxOutputBytes = 1 << 20;

function execPlugin(
  file: string,
  stdin: string,
  options: { readonly env: Record<string, string>; readonly timeoutMs: number },
): Promise<PluginExit> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, [], { env: options.env, stdio: 'pipe' });
    const stdout = collect(child.stdout);
    const stderr = collect(child.stderr);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, options.timeoutMs);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (exitCode, signal) => {
      clearTimeout(timer);
      resolve({ exitCode, signal, stdout: stdout(), stderr: stderr(), timedOut });
    });
    // A plugin may exit without reading its input.
    child.stdin.on('error', () => undefined);
    child.stdin.end(stdin);
  });
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < maxOutputBytes) chunks.push(chunk);
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8').trim();
}

/** The specification's error object from stdout ("msg; details", as libcni prints it), else whatever was said. */
function explainFailure(ended: PluginExit): string {
  try {
    const error = JSON.parse(ended.stdout) as { msg?: unknown; details?: unknown };
    if (typeof error.msg === 'string') {
      return typeof error.details === 'string' && error.details !== '' ? `${error.msg}; ${error.details}` : error.msg;
    }
  } catch {
    // not an error object
  }
  const status = ended.signal === null ? `exit status ${ended.exitCode}` : `killed by ${ended.signal}`;
  const said = [ended.stdout, ended.stderr]
    .filter((text) => text !== '')
    .map(shorten)
    .join(' ');
  return said === '' ? `netplugin failed with no error message: ${status}` : `${said} (${status})`;
}

function shorten(text: string): string {
  return text.length > 500 ? `${text.slice(0, 500)}…` : text;
}

/** The message is libcni's, because that is what people search for. */
function cniFailed(context: string, what: string, cause?: unknown): SluiceError {
  return new CniFailure(context, what, cause);
}

export class CniFailure extends SluiceError {
  constructor(context: string, what: string, cause?: unknown) {
    super({ code: 'cni_failed', operation: 'run', object: context, what, cause });
    this.message = `${context}: ${what}`;
  }
}
