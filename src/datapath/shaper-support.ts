/** What this kernel can shape with, found by doing it once on the loopback of a namespace of its own. */
import { hasErrorCode } from '../core/error.ts';
import { Errno, isErrno, withNewNetns } from '../kernel/index.ts';
import { applyBandwidth, type Bandwidth, type Shaper, shapersBestFirst } from './shaper.ts';

export interface ShaperSupport {
  /** Best first; the first is what limits are made with. */
  readonly egress: readonly Shaper[];
  /** Empty where packets cannot be redirected to an ifb. */
  readonly ingress: readonly Shaper[];
  /** Where the kernel can do less than others: a sentence each. */
  readonly shortfalls: readonly string[];
}

/** Takes some milliseconds, and loads the kernel's modules: once in a process is enough. */
export function probeShapers(): ShaperSupport {
  return withNewNetns(() => {
    const egress = shapersBestFirst.filter((shaper) => works({ egressBps: probeBps }, shaper));
    const ingress = egress.filter((shaper) => works({ ingressBps: probeBps }, shaper));
    return { egress, ingress, shortfalls: shortfallsOf(egress, ingress) };
  });
}

const probeBps = 1_000_000;
const here = { netns: '/proc/thread-self/ns/net', interfaceName: 'lo' };

function works(limit: Bandwidth, shaper: Shaper): boolean {
  try {
    applyBandwidth({ ...here, ...limit, ladder: [shaper] });
    return true;
  } catch (error) {
    // EOPNOTSUPP: no ifb. ENOENT: no clsact, filter or action.
    if (hasErrorCode(error, 'unsupported_kernel') || isErrno(error, Errno.EOPNOTSUPP, Errno.ENOENT)) return false;
    throw error;
  } finally {
    applyBandwidth(here);
  }
}

export function shortfallsOf(egress: readonly Shaper[], ingress: readonly Shaper[]): string[] {
  const [best] = egress;
  if (best === undefined) return ['this kernel cannot limit bandwidth: load the module sch_tbf'];
  const sentences: string[] = [];
  if (best === 'htb') {
    sentences.push(
      'this kernel has no flow queues (module sch_fq_codel): flows that would fill a limit share one queue; those that send little do not wait in it',
    );
  }
  if (best === 'tbf' || best === 'tbf+fq_codel') {
    sentences.push(
      'this kernel cannot let flows that send little go first (modules sch_htb, cls_bpf): while one flow fills a limit, the others wait with it',
    );
  }
  if (ingress.length === 0) {
    sentences.push(
      'this kernel cannot limit what pods receive: load the modules ifb, act_mirred and cls_matchall or cls_u32',
    );
  }
  return sentences;
}
