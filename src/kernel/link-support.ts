import { Errno, isErrno } from './errno.ts';
import { withNewNetns } from './netns.ts';
import { RtNetlink } from './netlink/rtnetlink.ts';

/** Whether the kernel makes links of this kind: tried in a namespace that ends with the call (trying loads the module). */
export function kernelHasLink(kind: 'ipvlan' | 'macvlan'): boolean {
  return withNewNetns(() => {
    using netlink = RtNetlink.open();
    netlink.addLink({ name: 'probe0', kind: 'veth', peer: { name: 'probe1' } });
    const parentIfindex = netlink.mustLink('probe0').ifindex;
    try {
      if (kind === 'ipvlan') netlink.addLink({ name: 'probe2', kind, parentIfindex, mode: 'l2' });
      else netlink.addLink({ name: 'probe2', kind, parentIfindex, mode: 'bridge' });
      return true;
    } catch (error) {
      if (isErrno(error, Errno.EOPNOTSUPP)) return false;
      throw error;
    }
  });
}
