import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  compareIp,
  formatIp,
  formatPrefix,
  ipFromBytes,
  ipToBytes,
  ipToPrefix,
  makePrefix,
  parseIp,
  parsePrefix,
  prefixBounds,
  prefixContains,
  prefixContainsIp,
  type IpAddress,
  type IpPrefix,
} from './ip.ts';
import { check } from './property.ts';

const ipv4 = fc.bigInt({ min: 0n, max: (1n << 32n) - 1n }).map((value): IpAddress => ({ family: 4, value }));
/** Half of the groups are zero, so that "::" has something to shorten. */
const ipv6 = fc
  .array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff })), { minLength: 8, maxLength: 8 })
  .map((groups): IpAddress => ({ family: 6, value: groups.reduce((sum, group) => (sum << 16n) | BigInt(group), 0n) }));
const ip = fc.oneof(ipv4, ipv6);
const prefix = ip.chain((address) =>
  fc.integer({ min: 0, max: address.family === 4 ? 32 : 128 }).map((length): IpPrefix => makePrefix(address, length)),
);

function must<T>(value: T | undefined): T {
  assert.notEqual(value, undefined);
  return value as T;
}

describe('parseIp and formatIp', () => {
  const rows: [text: string, printed: string][] = [
    ['0.0.0.0', '0.0.0.0'],
    ['172.51.0.100', '172.51.0.100'],
    ['255.255.255.255', '255.255.255.255'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['FD00:0051:0:0:0:0:0:1', 'fd00:51::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['::ffff:10.0.0.1', '::ffff:10.0.0.1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
  ];
  for (const [text, printed] of rows) {
    it(`${text} prints as ${printed}`, () => assert.equal(formatIp(must(parseIp(text))), printed));
  }

  const malformed =
    '|1|1.2.3|1.2.3.4.5|256.1.1.1|01.2.3.4|1.2.3.4 | 1.2.3.4|1.2.3.-4|0x1.2.3.4|:|:::|1::2::3|1:2:3:4:5:6:7|1:2:3:4:5:6:7:8:9|1:2:3:4:5:6:7:8::|12345::|g::|fe80::1%eth0|::1.2.3|1.2.3.4::|::1.2.3.4:5|1:2:3:4:5:6:7:1.2.3.4|:1::|1:';
  for (const text of malformed.split('|')) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.equal(parseIp(text), undefined));
  }

  it('agrees with node:net on what an address is', () => {
    const text = fc.oneof(
      ip.map(formatIp),
      fc.string({ unit: fc.constantFrom('0', '1', '2', '5', 'a', 'F', '.', ':'), maxLength: 20 }),
    );
    check(fc.property(text, (sample) => assert.equal(parseIp(sample)?.family ?? 0, isIP(sample), sample)));
  });

  it('reads back what it printed, and bytes likewise', () => {
    check(
      fc.property(ip, (address) => {
        assert.deepEqual(parseIp(formatIp(address)), address);
        assert.deepEqual(ipFromBytes(ipToBytes(address)), address);
      }),
    );
  });

  it('prints IPv6 as the URL parser does', () => {
    // WHATWG URL serialises IPv6 by the rules of RFC 5952, except that it never uses dotted decimal.
    const plain = ipv6.filter((address) => address.value >> 32n !== 0xffffn);
    check(
      fc.property(plain, (address) =>
        assert.equal(new URL(`http://[${formatIp(address)}]/`).hostname, `[${formatIp(address)}]`),
      ),
    );
  });
});

describe('prefixes', () => {
  it('clears host bits', () => {
    assert.equal(formatPrefix(must(parsePrefix('172.51.0.230/16'))), '172.51.0.0/16');
    assert.equal(formatPrefix(must(parsePrefix('fd00:51::1/64'))), 'fd00:51::/64');
    assert.equal(formatPrefix(must(parsePrefix('1.2.3.4/0'))), '0.0.0.0/0');
  });

  for (const text of [
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/-1',
    '10/8',
    '::/129',
    '::/1/2',
    '/8',
  ]) {
    it(`refuses ${text}`, () => assert.equal(parsePrefix(text), undefined));
  }

  it('contains exactly the addresses between its bounds', () => {
    check(
      fc.property(prefix, ip, (outer, address) => {
        const { first, last } = prefixBounds(outer);
        const between =
          address.family === first.family && compareIp(first, address) <= 0 && compareIp(address, last) <= 0;
        assert.equal(prefixContainsIp(outer, address), between);
        assert.ok(prefixContainsIp(outer, first) && prefixContainsIp(outer, last));
      }),
    );
  });

  it('contains another prefix exactly if it contains both of its ends', () => {
    const near = prefix.chain((outer) =>
      fc.tuple(
        fc.constant(outer),
        fc.oneof(
          prefix,
          fc.integer({ min: 0, max: outer.address.family === 4 ? 32 : 128 }).map((n) => makePrefix(outer.address, n)),
        ),
      ),
    );
    check(
      fc.property(near, ([outer, inner]) => {
        const { first, last } = prefixBounds(inner);
        assert.equal(prefixContains(outer, inner), prefixContainsIp(outer, first) && prefixContainsIp(outer, last));
      }),
    );
  });

  it('of one address contains that address only', () => {
    check(
      fc.property(ip, ip, (a, b) => {
        assert.equal(prefixContainsIp(ipToPrefix(a), b), a.family === b.family && a.value === b.value);
      }),
    );
  });
});
