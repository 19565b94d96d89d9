/**
 * The one door to foreign code: every system call that Node does not offer goes through this file.
 *
 * Each function behaves like the raw system call: it returns the result, or `-errno` (never throws for a
 * failing call). The typed wrappers beside this file turn negative results into errors with an operation and an object.
 * All calls are synchronous and run on the calling thread, which is what `setns(2)` needs.
 */
import koffi from 'koffi';
import { Errno } from './errno.ts';

/** `null` is the running process itself, so this works with any libc that Node was linked against. */
const libc = koffi.load(null);

/* eslint-disable @typescript-eslint/no-explicit-any -- the foreign functions are typed by their declarations below */
type Foreign = (...args: any[]) => any;
/* eslint-enable @typescript-eslint/no-explicit-any */

/** C's `int` and `long` results: -1 means "see errno". */
function checked(fn: Foreign): (...args: unknown[]) => number {
  return (...args) => {
    const result = Number(fn(...args));
    return result === -1 ? -koffi.errno() : result;
  };
}

const foreign = {
  syscall3: checked(libc.func('long syscall(long number, long a, void *b, long c)')),
  flock: checked(libc.func('int flock(int fd, int operation)')),
  setns: checked(libc.func('int setns(int fd, int nstype)')),
  unshare: checked(libc.func('int unshare(int flags)')),
  mount: checked(libc.func('int mount(str source, str target, str fstype, ulong flags, str data)')),
  umount2: checked(libc.func('int umount2(str target, int flags)')),
  socket: checked(libc.func('int socket(int domain, int type, int protocol)')),
  bind: checked(libc.func('int bind(int fd, void *address, uint length)')),
  connect: checked(libc.func('int connect(int fd, void *address, uint length)')),
  listen: checked(libc.func('int listen(int fd, int backlog)')),
  getsockname: checked(libc.func('int getsockname(int fd, void *address, void *length)')),
  setsockopt: checked(libc.func('int setsockopt(int fd, int level, int name, void *value, uint length)')),
  getsockopt: checked(libc.func('int getsockopt(int fd, int level, int name, void *value, void *length)')),
  send: checked(libc.func('long send(int fd, void *bytes, size_t length, int flags)')),
  recv: checked(libc.func('long recv(int fd, void *bytes, size_t length, int flags)')),
  recvmsg: checked(libc.func('long recvmsg(int fd, void *message, int flags)')),
  eventfd: checked(libc.func('int eventfd(uint value, int flags)')),
  poll: checked(libc.func('int poll(void *fds, ulong count, int timeoutMs)')),
  fcntl: checked(libc.func('int fcntl(int fd, int command, int argument)')),
  ioctl: checked(libc.func('int ioctl(int fd, ulong request, void *argument)')),
  /** Answers the error itself, and leaves errno alone. */
  pthreadSigmask: libc.func('int pthread_sigmask(int how, void *signals, void *before)') as Foreign,
  setrlimit: checked(libc.func('int setrlimit(int resource, void *limits)')),
  mmap: libc.func(
    'void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)',
  ) as Foreign,
  getpagesize: libc.func('int getpagesize()') as Foreign,
  munmap: checked(libc.func('int munmap(void *address, size_t length)')),
};

/** Runs on a thread of libuv's pool, which it occupies meanwhile. */
const pollOnPool = libc.func('int poll(void *fds, ulong count, int timeoutMs)').async as (...args: unknown[]) => void;

/** `SYS_bpf` per architecture; the number is the only thing that differs between the two we support. */
const SYS_BPF: Readonly<Record<string, number>> = { x64: 321, arm64: 280 };

/** bpf(2). `attr` is the union bpf_attr image; addresses inside it come from {@link addressOf}. */
export function bpf(command: number, attr: Uint8Array): number {
  const number = SYS_BPF[process.arch];
  if (number === undefined) return -38; // ENOSYS
  return foreign.syscall3(number, command, attr, attr.byteLength);
}

/** The memory address of `bytes`. The caller keeps a reference to `bytes` until the kernel is done with it. */
export function addressOf(bytes: Uint8Array): bigint {
  return BigInt(koffi.address(bytes));
}

const SIG_BLOCK = 0;
const SIG_SETMASK = 2;
/** Of glibc's sigset_t; musl's is as long. */
const signalSetLength = 128;

/** What `call` answers; the signal reaches this thread only afterwards. */
export function withSignalBlocked<T>(signal: number, call: () => T): T {
  const blocked = new Uint8Array(signalSetLength);
  // Signal 1 is the lowest bit; what is needed here lies in the first four bytes.
  new DataView(blocked.buffer).setUint32(0, 1 << (signal - 1), true);
  const before = new Uint8Array(signalSetLength);
  foreign.pthreadSigmask(SIG_BLOCK, blocked, before);
  try {
    return call();
  } finally {
    foreign.pthreadSigmask(SIG_SETMASK, before, null);
  }
}

export function flock(fd: number, operation: number): number {
  return foreign.flock(fd, operation);
}

export function setns(fd: number, namespaceType: number): number {
  return foreign.setns(fd, namespaceType);
}

export function unshare(flags: number): number {
  return foreign.unshare(flags);
}

export function mount(
  source: string,
  target: string,
  fsType: string | null,
  flags: number,
  data: string | null,
): number {
  return foreign.mount(source, target, fsType, flags, data);
}

export function umount2(target: string, flags: number): number {
  return foreign.umount2(target, flags);
}

export function socket(domain: number, type: number, protocol: number): number {
  return foreign.socket(domain, type, protocol);
}

export function bind(fd: number, address: Uint8Array): number {
  return foreign.bind(fd, address, address.byteLength);
}

export function connect(fd: number, address: Uint8Array): number {
  return foreign.connect(fd, address, address.byteLength);
}

export function listen(fd: number, backlog: number): number {
  return foreign.listen(fd, backlog);
}

/** Fills `address`; returns the address length or -errno. */
export function getsockname(fd: number, address: Uint8Array): number {
  const length = new Uint32Array([address.byteLength]);
  const rc = foreign.getsockname(fd, address, length);
  return rc < 0 ? rc : (length[0] ?? 0);
}

export function setsockopt(fd: number, level: number, name: number, value: Uint8Array): number {
  return foreign.setsockopt(fd, level, name, value, value.byteLength);
}

/** Fills `value`; returns the option length or -errno. */
export function getsockopt(fd: number, level: number, name: number, value: Uint8Array): number {
  const length = new Uint32Array([value.byteLength]);
  const rc = foreign.getsockopt(fd, level, name, value, length);
  return rc < 0 ? rc : (length[0] ?? 0);
}

export function send(fd: number, bytes: Uint8Array, flags: number): number {
  for (;;) {
    const sent = foreign.send(fd, bytes, bytes.byteLength, flags);
    if (sent !== -Errno.EINTR) return sent;
  }
}

export function recv(fd: number, bytes: Uint8Array, flags: number): number {
  return foreign.recv(fd, bytes, bytes.byteLength, flags);
}

const POLLIN = 1;

/**
 * poll(2) on one descriptor; returns its `revents` (0 on timeout) or -errno. A signal does not end the wait: the kernel never
 * restarts poll after a handler ran (signal(7)), so this does, with the time that is left.
 */
export function pollOne(fd: number, events: number, timeoutMs: number): number {
  const pollfd = new DataView(new ArrayBuffer(8));
  pollfd.setInt32(0, fd, true);
  pollfd.setInt16(4, events, true);
  const endMs = performance.now() + timeoutMs;
  let leftMs = timeoutMs;
  for (;;) {
    const rc = foreign.poll(new Uint8Array(pollfd.buffer), 1, leftMs);
    if (rc !== -Errno.EINTR) return rc <= 0 ? rc : pollfd.getInt16(6, true);
    if (timeoutMs > 0) leftMs = Math.max(0, Math.ceil(endMs - performance.now()));
  }
}

/**
 * Waits until one of the descriptors can be read, off the calling thread: at most `timeoutMs`, since the process cannot end
 * before. Errors are those of the calls that follow.
 */
export function pollReadable(fds: readonly number[], timeoutMs: number): Promise<void> {
  const pollfds = new DataView(new ArrayBuffer(8 * fds.length));
  for (const [i, fd] of fds.entries()) {
    pollfds.setInt32(8 * i, fd, true);
    pollfds.setInt16(8 * i + 4, POLLIN, true);
  }
  const bytes = new Uint8Array(pollfds.buffer);
  // The closure keeps the memory until the kernel is done with it.
  return new Promise((resolve) => pollOnPool(bytes, fds.length, timeoutMs, () => resolve(void bytes)));
}

/** recvmsg(2): fills `bytes` and `control`; -errno on failure. */
export function recvmsg(
  fd: number,
  bytes: Uint8Array,
  control: Uint8Array,
  flags: number,
): number | { readonly length: number; readonly controlLength: number } {
  // struct msghdr (name, its length, iov, their number, control, its length, flags), and the iov in the same memory: it must
  // not be collected before the call.
  const message = new BigUint64Array([
    ...[0n, 0n, 0n, 1n],
    ...[addressOf(control), BigInt(control.byteLength), 0n],
    ...[addressOf(bytes), BigInt(bytes.byteLength)],
  ]);
  message[2] = addressOf(new Uint8Array(message.buffer)) + 7n * 8n;
  const length = foreign.recvmsg(fd, message, flags);
  return length < 0 ? length : { length, controlLength: Number(message[5]) };
}

export function eventfd(flags: number): number {
  return foreign.eventfd(0, flags);
}

export function fcntl(fd: number, command: number, argument: number): number {
  return foreign.fcntl(fd, command, argument);
}

export function ioctl(fd: number, request: number, argument: Uint8Array): number {
  return foreign.ioctl(fd, request, argument);
}

export const Protection = { read: 1, write: 2 } as const;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** Memory shared with the kernel. `bytes` must not be touched after {@link munmap}. */
export interface MappedMemory {
  readonly address: bigint;
  readonly bytes: ArrayBuffer;
}

/** mmap(2) of a descriptor, shared; -errno when the kernel refuses. */
export function mmap(fd: number, length: number, protection: number, offset: number): MappedMemory | number {
  const address = BigInt(foreign.mmap(null, length, protection, MAP_SHARED, fd, offset) as bigint);
  if (address === MAP_FAILED) return -koffi.errno();
  return { address, bytes: koffi.view(address, length) };
}

export function munmap({ address, bytes }: MappedMemory): number {
  return foreign.munmap(address, bytes.byteLength);
}

export function pageSize(): number {
  return Number(foreign.getpagesize());
}

/** `limits` is struct rlimit. */
export function setrlimit(resource: number, limits: Uint8Array): number {
  return foreign.setrlimit(resource, limits);
}
