/** What packet sockets share (include/linux/socket.h, include/uapi/linux/if_packet.h). */
export const AF_PACKET = 17;
export const SOL_PACKET = 263;
export const PACKET_QDISC_BYPASS = 20;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0x800;
export const SOCK_CLOEXEC = 0x80000;

/** struct sockaddr_ll for bind(2); `protocol` is an ethertype. */
export function packetAddress(ifindex: number, protocol: number): Uint8Array {
  const address = new DataView(new ArrayBuffer(20));
  address.setUint16(0, AF_PACKET, true);
  address.setUint16(2, protocol, false);
  address.setInt32(4, ifindex, true);
  return new Uint8Array(address.buffer);
}
