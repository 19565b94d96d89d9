/** Numbers of include/uapi/linux/{netlink,rtnetlink,if_link,pkt_sched,pkt_cls}.h that more than one file uses. */

export const NlmFlag = {
  request: 0x1,
  multi: 0x2,
  ack: 0x4,
  dumpInterrupted: 0x10,
  dump: 0x300,
  replace: 0x100,
  exclusive: 0x200,
  create: 0x400,
} as const;

export const NlMessageType = { noop: 1, error: 2, done: 3, overrun: 4 } as const;

export const Rtm = {
  newLink: 16,
  delLink: 17,
  getLink: 18,
  newAddress: 20,
  delAddress: 21,
  getAddress: 22,
  newRoute: 24,
  delRoute: 25,
  getRoute: 26,
  newNeighbour: 28,
  delNeighbour: 29,
  getNeighbour: 30,
  newRule: 32,
  delRule: 33,
  getRule: 34,
  newQdisc: 36,
  delQdisc: 37,
  getQdisc: 38,
  newClass: 40,
  delClass: 41,
  getClass: 42,
  newFilter: 44,
  delFilter: 45,
  getFilter: 46,
  newNsid: 88,
  getNsid: 90,
} as const;

export const AddressFamily = { unspecified: 0, inet: 2, bridge: 7, inet6: 10 } as const;

/** The kernel's address family of an IP family. */
export function addressFamily(family: 4 | 6): number {
  return family === 4 ? AddressFamily.inet : AddressFamily.inet6;
}
