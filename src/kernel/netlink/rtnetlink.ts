/** rtnetlink in verbs: what `ip` and `tc` do, for one network namespace, synchronously. */
import type { IpAddress, IpFamily } from '../../core/ip.ts';
import { formatIp } from '../../core/ip.ts';
import { SluiceError } from '../../core/error.ts';
import { Errno, isErrno } from '../errno.ts';
import type { Netns, NetnsRef } from '../netns.ts';
import {
  type AddressSpec,
  decodeAddress,
  describeAddress,
  encodeAddress,
  encodeAddressDump,
  type InterfaceAddress,
} from './address.ts';
import type { BondOptions } from './bond.ts';
import type { NetlinkMessage } from './codec.ts';
import { NetlinkConn, type NetlinkRequest } from './conn.ts';
import { NlmFlag, Rtm } from './constants.ts';
import { decodeFilter, encodeFilter, encodeFilterQuery, type Filter, type FilterSpec } from './filter.ts';
import {
  decodeLink,
  encodeBondChange,
  encodeLinkByName,
  encodeLinkChange,
  encodeLinkRequest,
  encodeLinkSpec,
  type Link,
  type LinkChange,
  type LinkSpec,
} from './link.ts';
import {
  decodeNeighbour,
  describeNeighbour,
  encodeNeighbour,
  encodeNeighbourDump,
  type Neighbour,
  type NeighbourSpec,
} from './neighbour.ts';
import { decodeNsid, encodeNsidAssignment, encodeNsidQuery } from './nsid.ts';
import {
  decodeHtbClass,
  decodeQdisc,
  encodeHtbClass,
  encodeQdisc,
  type HtbClass,
  type HtbClassSpec,
  type Qdisc,
  type QdiscSpec,
  tcHeader,
} from './qdisc.ts';
import {
  decodeRoutes,
  describeRoute,
  encodeRoute,
  encodeRouteDeletion,
  encodeRouteDump,
  encodeRouteLookup,
  type Route,
  type RouteSpec,
} from './route.ts';
import { decodeRule, describeRule, encodeRule, encodeRuleDump, type Rule } from './rule.ts';

const families: readonly IpFamily[] = [4, 6];
const addExclusive = NlmFlag.create | NlmFlag.exclusive;
const addOrReplace = NlmFlag.create | NlmFlag.replace;
/** An object the caller wants gone is gone under any of these. */
const goneErrnos = [Errno.ENOENT, Errno.ENODEV, Errno.ESRCH, Errno.EADDRNOTAVAIL];

export class RtNetlink implements Disposable {
  readonly #conn: NetlinkConn;

  constructor(conn: NetlinkConn) {
    this.#conn = conn;
  }

  /** Bound to `netns` for its whole life; default: the calling thread's netns. */
  static open(netns?: NetnsRef): RtNetlink {
    return new RtNetlink(NetlinkConn.open(netns));
  }

  close(): void {
    this.#conn.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  // links

  links(): Link[] {
    return this.#dump(Rtm.getLink, encodeLinkRequest(0), 'links').map(decodeLink);
  }

  linkByName(name: string): Link | undefined {
    const request = { type: Rtm.getLink, flags: 0, body: encodeLinkByName(name), operation: 'get link', object: name };
    const message = this.#conn.get(request, [Errno.ENODEV]);
    return message === undefined ? undefined : decodeLink(message);
  }

  linkByIndex(ifindex: number): Link | undefined {
    const request = {
      type: Rtm.getLink,
      flags: 0,
      body: encodeLinkRequest(ifindex),
      operation: 'get link',
      object: `ifindex ${ifindex}`,
    };
    const message = this.#conn.get(request, [Errno.ENODEV]);
    return message === undefined ? undefined : decodeLink(message);
  }

  /** {@link linkByName} for a link that must be there. */
  mustLink(name: string): Link {
    const link = this.linkByName(name);
    if (link !== undefined) return link;
    throw new SluiceError({
      code: 'not_found',
      operation: 'find link',
      object: name,
      what: 'no link of this name in the network namespace',
    });
  }

  /** Throws EEXIST when the name is taken. Returns the new link when it was made in this netns. */
  addLink(spec: LinkSpec): void {
    this.#execute(Rtm.newLink, addExclusive, encodeLinkSpec(spec), `add ${spec.kind} link`, spec.name);
  }

  setLink(ifindex: number, change: LinkChange): void {
    this.#execute(Rtm.newLink, 0, encodeLinkChange(ifindex, change), 'change link', `ifindex ${ifindex}`);
  }

  /** Of a bond that exists. */
  changeBond(ifindex: number, options: BondOptions): void {
    this.#execute(Rtm.newLink, 0, encodeBondChange(ifindex, options), 'change bond', `ifindex ${ifindex}`);
  }

  /** False when it was gone already. */
  deleteLink(ifindex: number): boolean {
    return this.#remove(Rtm.delLink, encodeLinkRequest(ifindex), 'delete link', `ifindex ${ifindex}`);
  }

  /** The `parentNetnsId` of links here whose parent or peer is in `netns`; undefined when no link ever had one there. */
  netnsId(netns: Netns): number | undefined {
    const body = encodeNsidQuery(netns.fd);
    const request = { type: Rtm.getNsid, flags: 0, body, operation: 'number', object: `netns ${netns.path}` };
    const message = this.#conn.get(request, []);
    return message && decodeNsid(message);
  }

  /** The same, and a number if it had none; the kernel forgets it with the namespace. */
  numberNetns(netns: Netns): number | undefined {
    const known = this.netnsId(netns);
    if (known !== undefined) return known;
    this.#execute(Rtm.newNsid, 0, encodeNsidAssignment(netns.fd), 'number', `netns ${netns.path}`);
    return this.netnsId(netns);
  }

  // addresses

  addresses(ifindex?: number): InterfaceAddress[] {
    const all = this.#dump(Rtm.getAddress, encodeAddressDump(ifindex ?? 0), 'addresses').map(decodeAddress);
    return all
      .filter((address) => address !== undefined)
      .filter((address) => ifindex === undefined || address.ifindex === ifindex);
  }

  /** Adds it, or changes the one that is there. */
  setAddress(spec: AddressSpec): void {
    this.#execute(Rtm.newAddress, addOrReplace, encodeAddress(spec), 'add address', describeAddress(spec));
  }

  deleteAddress(spec: AddressSpec): boolean {
    return this.#remove(Rtm.delAddress, encodeAddress(spec), 'delete address', describeAddress(spec));
  }

  // routes

  /** Every table; filter by `table`. */
  routes(): Route[] {
    return families.flatMap((family) =>
      this.#dump(Rtm.getRoute, encodeRouteDump(family), `IPv${family} routes`).flatMap(decodeRoutes),
    );
  }

  /** The route a packet to `dst` would take; undefined when there is none. */
  routeTo(dst: IpAddress): Route | undefined {
    const request = {
      type: Rtm.getRoute,
      flags: 0,
      body: encodeRouteLookup(dst),
      operation: 'look up route to',
      object: formatIp(dst),
    };
    const message = this.#conn.get(request, [Errno.ENETUNREACH, 113 /* EHOSTUNREACH */, Errno.ESRCH]);
    return message === undefined ? undefined : decodeRoutes(message)[0];
  }

  /** Throws EEXIST when the same destination, table and metric are taken. */
  addRoute(spec: RouteSpec): void {
    this.#execute(Rtm.newRoute, addExclusive, encodeRoute(spec), 'add route', describeRoute(spec));
  }

  replaceRoute(spec: RouteSpec): void {
    this.#execute(Rtm.newRoute, addOrReplace, encodeRoute(spec), 'replace route', describeRoute(spec));
  }

  deleteRoute(spec: RouteSpec): boolean {
    return this.#remove(Rtm.delRoute, encodeRouteDeletion(spec), 'delete route', describeRoute(spec));
  }

  // rules

  rules(): Rule[] {
    return families.flatMap((family) =>
      this.#dump(Rtm.getRule, encodeRuleDump(family), `IPv${family} rules`).map(decodeRule),
    );
  }

  /** Idempotent: an equal rule that is there already is left alone. */
  ensureRule(rule: Rule): void {
    try {
      this.#execute(Rtm.newRule, addExclusive, encodeRule(rule), 'add rule', describeRule(rule));
    } catch (error) {
      if (!isErrno(error, Errno.EEXIST)) throw error;
    }
  }

  deleteRule(rule: Rule): boolean {
    return this.#remove(Rtm.delRule, encodeRule(rule), 'delete rule', describeRule(rule));
  }

  // neighbours

  neighbours(): Neighbour[] {
    return this.#dump(Rtm.getNeighbour, encodeNeighbourDump(), 'neighbours')
      .map(decodeNeighbour)
      .filter((neighbour) => neighbour !== undefined);
  }

  setNeighbour(spec: NeighbourSpec): void {
    this.#execute(Rtm.newNeighbour, addOrReplace, encodeNeighbour(spec), 'set neighbour', describeNeighbour(spec));
  }

  deleteNeighbour(spec: NeighbourSpec): boolean {
    return this.#remove(Rtm.delNeighbour, encodeNeighbour(spec), 'delete neighbour', describeNeighbour(spec));
  }

  // traffic control

  qdiscs(ifindex?: number): Qdisc[] {
    const all = this.#dump(Rtm.getQdisc, tcHeader(0, 0, 0, 0).finish(), 'qdiscs').map(decodeQdisc);
    return all.filter((qdisc) => ifindex === undefined || qdisc.ifindex === ifindex);
  }

  /** Throws EEXIST when the place is taken by one that somebody configured. */
  addQdisc(spec: QdiscSpec): void {
    this.#execute(
      Rtm.newQdisc,
      addExclusive,
      encodeQdisc(spec),
      `add ${spec.options.kind} qdisc`,
      `on ifindex ${spec.ifindex}`,
    );
  }

  /** Adds it, changes its parameters, or puts it in the place of another kind. */
  replaceQdisc(spec: QdiscSpec): void {
    this.#execute(
      Rtm.newQdisc,
      addOrReplace,
      encodeQdisc(spec),
      `replace ${spec.options.kind} qdisc`,
      `on ifindex ${spec.ifindex}`,
    );
  }

  deleteQdisc(ifindex: number, parent: number, handle = 0): boolean {
    const body = tcHeader(ifindex, handle, parent, 0).finish();
    // EINVAL: the place has only the kernel's default qdisc.
    return this.#remove(Rtm.delQdisc, body, 'delete qdisc', `on ifindex ${ifindex}`, [...goneErrnos, Errno.EINVAL]);
  }

  htbClasses(ifindex: number): HtbClass[] {
    return this.#dump(Rtm.getClass, tcHeader(ifindex, 0, 0, 0).finish(), 'classes')
      .map(decodeHtbClass)
      .filter((htb) => htb !== undefined);
  }

  /** Adds the class or changes it. */
  setHtbClass(spec: HtbClassSpec): void {
    this.#execute(Rtm.newClass, NlmFlag.create, encodeHtbClass(spec), 'set htb class', `on ifindex ${spec.ifindex}`);
  }

  filters(ifindex: number, parent: number): Filter[] {
    return this.#dump(Rtm.getFilter, encodeFilterQuery(ifindex, parent, 0), 'filters').map(decodeFilter);
  }

  addFilter(spec: FilterSpec): void {
    this.#execute(
      Rtm.newFilter,
      addExclusive,
      encodeFilter(spec),
      `add ${spec.options.kind} filter`,
      `on ifindex ${spec.ifindex}`,
    );
  }

  /** cls_bpf swaps the program atomically when priority and handle are those of an existing filter. */
  replaceFilter(spec: FilterSpec): void {
    this.#execute(
      Rtm.newFilter,
      addOrReplace,
      encodeFilter(spec),
      `replace ${spec.options.kind} filter`,
      `on ifindex ${spec.ifindex}`,
    );
  }

  /** This one; its priority's others stay. */
  deleteFilter({
    ifindex,
    parent,
    priority,
    handle,
  }: Pick<FilterSpec, 'ifindex' | 'parent' | 'priority' | 'handle'>): boolean {
    const body = encodeFilterQuery(ifindex, parent, priority, handle);
    return this.#remove(Rtm.delFilter, body, 'delete filter', `on ifindex ${ifindex}`, [...goneErrnos, Errno.EINVAL]);
  }

  /** All filters of this priority; they are of one kind and one protocol (an Ethernet type; default: all). */
  deleteFilters(ifindex: number, parent: number, priority: number, protocolBe?: number): boolean {
    const body = encodeFilterQuery(ifindex, parent, priority, 0, protocolBe);
    return this.#remove(Rtm.delFilter, body, 'delete filters', `on ifindex ${ifindex}`, [...goneErrnos, Errno.EINVAL]);
  }

  #execute(type: number, flags: number, body: Uint8Array, operation: string, object: string): void {
    this.#conn.execute({ type, flags, body, operation, object });
  }

  #remove(
    type: number,
    body: Uint8Array,
    operation: string,
    object: string,
    gone: readonly number[] = goneErrnos,
  ): boolean {
    try {
      this.#execute(type, 0, body, operation, object);
      return true;
    } catch (error) {
      if (isErrno(error, ...gone)) return false;
      throw error;
    }
  }

  #dump(type: number, body: Uint8Array, what: string): NetlinkMessage[] {
    const request: NetlinkRequest = { type, flags: 0, body, operation: 'list', object: what };
    return this.#conn.dump(request);
  }
}
