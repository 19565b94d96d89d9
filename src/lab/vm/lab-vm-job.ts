/** Commands inside a lab's virtual machine, by files in the shared directory: JOBS/ID/{script, out, err, status}. */

import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../../core/clock.ts';
import { SluiceError } from '../../core/error.ts';
import { isAlive } from '../process.ts';
import type { LabVm } from './lab-vm.ts';
import { shellCommand, shellExports } from './shell.ts';

export interface LabVmJob {
  readonly command: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
  readonly onStdout?: (chunk: Buffer) => void;
  readonly onStderr?: (chunk: Buffer) => void;
}

const pollMs = 50;

/** Its exit status. Throws `timeout` (the command goes on in the guest), `cancelled`, `vm_failed` when the machine ended. */
export async function runInLabVm(vm: LabVm, job: LabVmJob): Promise<number> {
  const jobDir = submit(vm, job);
  const out = new GrowingFile(join(jobDir, 'out'), job.onStdout);
  const err = new GrowingFile(join(jobDir, 'err'), job.onStderr);
  const deadline = job.clock.monotonicMs() + job.timeoutMs;
  try {
    for (;;) {
      const done = existsSync(join(jobDir, 'status'));
      out.readOn();
      err.readOn();
      if (done) return Number(readFileSync(join(jobDir, 'status'), 'utf8'));
      if (!isAlive(vm.process)) throw failure('vm_failed', job, 'the virtual machine ended');
      if (job.clock.monotonicMs() > deadline) throw failure('timeout', job, `no end after ${job.timeoutMs / 1000} s`);
      if (job.signal?.aborted === true) throw failure('cancelled', job, 'stopped by its caller');
      await job.clock.sleep(pollMs);
    }
  } finally {
    out.close();
    err.close();
    rmSync(jobDir, { recursive: true, force: true });
  }
}

/** Written aside and renamed: the guest takes up a directory as soon as it sees it. */
function submit(vm: LabVm, job: LabVmJob): string {
  const id = randomBytes(8).toString('hex');
  const scratch = join(vm.shareDir, `new-${id}`);
  const jobDir = join(vm.shareDir, 'jobs', id);
  mkdirSync(scratch, { recursive: true });
  const exports = shellExports(job.env ?? {});
  writeFileSync(
    join(scratch, 'script'),
    `${exports}cd ${shellCommand([job.cwd ?? '/'])}\nexec /usr/bin/env ${shellCommand(job.command)}\n`,
  );
  renameSync(scratch, jobDir);
  return jobDir;
}

/** A file that another program appends to. */
class GrowingFile {
  readonly #path: string;
  readonly #onChunk: ((chunk: Buffer) => void) | undefined;
  #fd: number | undefined;
  #offset = 0;

  constructor(path: string, onChunk: ((chunk: Buffer) => void) | undefined) {
    this.#path = path;
    this.#onChunk = onChunk;
  }

  readOn(): void {
    if (this.#fd === undefined && existsSync(this.#path)) this.#fd = openSync(this.#path, 'r');
    if (this.#fd === undefined) return;
    const chunk = Buffer.alloc(fstatSync(this.#fd).size - this.#offset);
    const length = readSync(this.#fd, chunk, 0, chunk.length, this.#offset);
    if (length === 0) return;
    this.#offset += length;
    this.#onChunk?.(chunk.subarray(0, length));
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

function failure(code: 'timeout' | 'cancelled' | 'vm_failed', job: LabVmJob, what: string): SluiceError {
  return new SluiceError({ code, operation: 'run in the lab’s virtual machine', object: job.command.join(' '), what });
}
