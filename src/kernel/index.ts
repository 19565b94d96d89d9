/** The kernel, seen from TypeScript. Nothing here knows Kubernetes. */
export { Collection, type CollectionSpec, loadCollection, parseCollection } from './bpf/collection.ts';
export { Btf, type BtfType } from './bpf/btf.ts';
export { haveTcx } from './bpf/features.ts';
export { BpfLink, type HookProgram, type LinkInfo, queryTcx, type TcxHook } from './bpf/link.ts';
export { BpfMap, mapDifferences, MapFlag, type MapSpec, MapType, possibleCpus, UpdateFlag } from './bpf/map.ts';
export { MappedMap } from './bpf/mapped-map.ts';
export { unpin } from './bpf/object.ts';
export { RingBufferReader } from './bpf/ring-buffer.ts';
export { BpfProgram, ProgramType, type TestRun, VerifierError } from './bpf/program.ts';
export { check, Errno, errnoName, isErrno, SyscallError } from './errno.ts';
export { tryLockFile } from './file-lock.ts';
export {
  createNamedNetns,
  Netns,
  netnsInode,
  type NetnsRef,
  removeNamedNetns,
  withNetns,
  withNewNetns,
} from './netns.ts';
export { RtNetlink } from './netlink/rtnetlink.ts';
export { TcMonitor } from './netlink/tc-monitor.ts';
export { tcHandle, tcMakeHandle } from './netlink/qdisc.ts';
