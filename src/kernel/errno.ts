/** Failed system calls as errors: which call, on what object, why. */
import { getSystemErrorMap } from 'node:util';
import { type ErrorCode, SluiceError } from '../core/error.ts';

/** The errno values this layer branches on. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOSPC: 28,
  ERANGE: 34,
  ENOSYS: 38,
  ENODATA: 61,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EINPROGRESS: 115,
  ESTALE: 116,
  /** Kernel-internal, yet bpf(2) lets it out where an operation is missing. */
  ENOTSUPP: 524,
} as const;

/** The symbolic name of a positive errno, e.g. 2 → `ENOENT`. */
export function errnoName(errno: number): string {
  if (errno === Errno.ENOTSUPP) return 'ENOTSUPP';
  return getSystemErrorMap().get(-errno)?.[0] ?? `errno ${errno}`;
}

export function errnoText(errno: number): string {
  const name = errnoName(errno);
  const text = getSystemErrorMap().get(-errno)?.[1];
  return text === undefined ? name : `${text} (${name})`;
}

export interface SyscallErrorInit {
  /** What was attempted, in words or as the call's name, e.g. `mount bpffs`. */
  readonly operation: string;
  /** What it was attempted on, e.g. a path or `eth0 (ifindex 4)`. */
  readonly object: string;
  /** Positive errno. */
  readonly errno: number;
  /** Default: permission_denied for EPERM and EACCES, syscall_failed for the rest. */
  readonly code?: ErrorCode;
  /** Replaces the errno's own text when a better reason is known. */
  readonly reason?: string;
  readonly remedy?: string;
  readonly cause?: unknown;
}

/** A system call failed. `errno` is positive; `errnoName` is its symbol. */
export class SyscallError extends SluiceError {
  readonly errno: number;

  constructor(init: SyscallErrorInit) {
    super({
      code: init.code ?? codeOf(init.errno),
      operation: init.operation,
      object: init.object,
      what: init.reason === undefined ? errnoText(init.errno) : `${init.reason} (${errnoName(init.errno)})`,
      remedy: init.remedy,
      cause: init.cause,
    });
    this.errno = init.errno;
  }

  get errnoName(): string {
    return errnoName(this.errno);
  }
}

function codeOf(errno: number): ErrorCode {
  return errno === Errno.EPERM || errno === Errno.EACCES ? 'permission_denied' : 'syscall_failed';
}

/** Returns `result`, or throws the {@link SyscallError} that a negative result stands for. */
export function check(result: number, operation: string, object: string, remedy?: string): number {
  if (result < 0) throw new SyscallError({ operation, object, errno: -result, remedy });
  return result;
}

/** True when `error` (or an error that it wraps) is the system call failure `errno`; also for Node's own fs errors. */
export function isErrno(error: unknown, ...errnos: readonly number[]): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    const errno = (at as { errno?: unknown }).errno;
    if (typeof errno === 'number' && errnos.includes(Math.abs(errno))) return true;
  }
  return false;
}
