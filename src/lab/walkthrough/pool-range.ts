/** The walkthrough's pool: 172.51.0.100 to 172.51.0.108. */
import { compareIp, parseIp } from '../../core/ip.ts';

const first = '172.51.0.100';
const last = '172.51.0.108';

export function formatIpRange(): string {
  return `${first}-${last}`;
}

export function ipInRange(text: string): boolean {
  const [ip, low, high] = [parseIp(text), parseIp(first), parseIp(last)];
  return (
    ip !== undefined && low !== undefined && high !== undefined && compareIp(low, ip) <= 0 && compareIp(ip, high) <= 0
  );
}
