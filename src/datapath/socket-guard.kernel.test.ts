/** Sockets made in a guarded cgroup, beside a pod that may send nothing. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Cgroup } from '../kernel/cgroup.ts';
import { Errno } from '../kernel/errno.ts';
import { ownFd } from '../kernel/fd.ts';
import { setsockopt, socket } from '../kernel/ffi.ts';
import { PacketCapture } from '../kernel/packet-capture.ts';
import { sendFrames } from '../kernel/packet-send.ts';
import { SOCK_CLOEXEC, SOCK_RAW } from '../kernel/packet-socket.ts';
import { Datapath } from './datapath.ts';
import { ip, udpHeader } from './packets.ts';
import { removeSocketGuard, SocketGuard } from './socket-guard.ts';
import { address, errnoIn, randomSuffix, TestBpffs, TestPair, TestStack, whyNoKernelTests } from './test-bed.ts';

const endpointId = 43;
const reason = whyNoKernelTests();
const AF_INET = 2;
const AF_XDP = 44;
const SOL_XDP = 283;
const XDP_UMEM_REG = 4;
const IPPROTO_RAW = 255;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;

/** -errno of an option that is refused one way or another, since its value is nonsense. Undefined without AF_XDP. */
function tryXdp(): number | undefined {
  const rc = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (rc === -Errno.EAFNOSUPPORT) return undefined;
  using fd = ownFd(rc, 'AF_XDP socket');
  return setsockopt(fd.value, SOL_XDP, XDP_UMEM_REG, new Uint8Array(1));
}

describe('sockets that send past the hooks', { skip: reason ?? false }, () => {
  let stack: TestStack;
  let pair: TestPair;
  let datapath: Datapath;
  let pod: Cgroup;
  let container: Cgroup;
  let capture: PacketCapture;

  beforeEach(() => {
    stack = new TestStack();
    const bpffs = stack.use(new TestBpffs());
    pair = stack.use(new TestPair('veth'));
    datapath = stack.use(Datapath.open({ bpffsDir: bpffs.path, limits: { conntrack: 8192 } }));
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
    datapath.setPolicy(endpointId, { isolated: { ingress: true, egress: true }, entries: [] });
    pod = Cgroup.named(`sluice-test-${randomSuffix()}`);
    container = pod.child('container');
    container.create();
    capture = stack.use(PacketCapture.open(pair.peer, pair.interfaceName));
  });
  afterEach(() => {
    stack[Symbol.dispose]();
    pod.remove();
  });

  const frame = ip(address.pod4, address.peer4, 17, udpHeader(4000, 53));
  const send = (direct: boolean) => () => sendFrames(pair.pod, pair.interfaceName, [frame], { direct });
  const isOurs = (seen: Uint8Array): boolean => Buffer.compare(seen, frame) === 0;
  /** Whether the peer receives a frame like ours in that time. */
  const arrives = (withinMs: number): boolean => {
    for (const deadline = Date.now() + withinMs; ;) {
      if (capture.drain(Math.min(withinMs, 100)).some(isOurs)) return true;
      if (Date.now() >= deadline) return false;
    }
  };

  it('cannot be made in a guarded pod, and can elsewhere', () => {
    assert.equal(errnoIn(container, send(false)), 'ENOBUFS', 'the hook drops what an ordinary packet socket sends');
    assert.ok(!arrives(100));
    assert.equal(errnoIn(container, send(true)), 'done', 'the hole: the kernel asks no hook');
    assert.ok(arrives(10_000));

    using guard = new SocketGuard();
    using restarted = new SocketGuard();
    assert.deepEqual([guard.put(pod.path), guard.put(pod.path), restarted.put(pod.path)], [true, false, false]);
    assert.equal(errnoIn(container, send(true)), 'EPERM');
    assert.equal(errnoIn(container, send(false)), 'ENOBUFS');
    assert.ok(!arrives(200));
    let xdp: number | undefined;
    errnoIn(container, () => (xdp = tryXdp()));
    assert.ok(xdp === undefined || xdp === -Errno.EPERM, `AF_XDP: ${xdp}`);
    assert.notEqual(tryXdp(), -Errno.EPERM, 'who is not in the pod may');
    assert.equal(
      errnoIn(pod.child('container'), () => setOrdinaryOptions()),
      'done',
    );

    assert.ok(removeSocketGuard(pod.path, { dryRun: true }));
    assert.deepEqual([removeSocketGuard(pod.path), removeSocketGuard(pod.path)], [true, false]);
    assert.equal(errnoIn(container, send(true)), 'done');
  });
});

/** Also with a value of more than a page, which a program on the cgroup could make fail. */
function setOrdinaryOptions(): void {
  using fd = ownFd(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), 'raw socket');
  const value = new Uint8Array(8192);
  new DataView(value.buffer).setUint32(0, 65_536, true);
  assert.equal(setsockopt(fd.value, SOL_SOCKET, SO_RCVBUF, value), 0);
}
