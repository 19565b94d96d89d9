/** The committed object is what bpf/ says and what abi.ts believes. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { parseCollection } from '../kernel/index.ts';
import { packageRoot } from '../kernel/package-root.ts';
import * as abi from './abi.ts';
import { connectionLifetimesS } from './connections.ts';
import { flowSettings, shaperObjectPath } from './flow-classifier.ts';
import * as sizes from './shaper-sizes.ts';
import { endpointObjectPath, readEndpointObject } from './programs.ts';
import { type FieldSpec, fieldSize } from './struct.ts';

const { spec } = readEndpointObject();
const root = packageRoot();
const header = (name: string): string => readFileSync(join(root, 'bpf', name), 'utf8');
const doc = (name: string): string => readFileSync(join(root, 'docs', 'reference', name), 'utf8');

/** The enumerators of `enum name` in abi.h, in the order of their numbers. */
function enumerators(name: string): Map<string, number> {
  const body = new RegExp(`enum ${name} \\{([^}]*)\\}`).exec(header('abi.h'))?.[1] ?? '';
  return new Map([...body.matchAll(/(\w+) = (\d+)/g)].map((match) => [match[1] ?? '', Number(match[2])]));
}

describe('the structs of abi.ts against the BTF of the object', () => {
  for (const struct of abi.structs) {
    it(`struct ${struct.cName}`, () => {
      const type = spec.btf.find('struct', struct.cName);
      assert.ok(type, 'is in the BTF');
      assert.equal(type.size, struct.size);
      const members = type.members.filter((member) => member.name !== 'pad');
      assert.deepEqual(
        Object.values<FieldSpec>(struct.fields).map(([name, fieldType, offset]) => [
          name,
          offset * 8,
          fieldSize[fieldType],
        ]),
        members.map((member) => [member.name, member.bitOffset, spec.btf.sizeOf(member.typeId)]),
      );
    });

    it(`struct ${struct.cName} survives encoding and decoding`, () => {
      const bytes = Uint8Array.from({ length: struct.size }, (_, i) => i + 1);
      const codec = struct as unknown as { encode(value: unknown): Uint8Array; decode(bytes: Uint8Array): unknown };
      const value = codec.decode(bytes);
      assert.deepEqual(codec.decode(codec.encode(value)), value);
    });
  }
});

it('struct flow_settings against the BTF of the object', () => {
  const object = parseCollection(readFileSync(shaperObjectPath()), 'shaper.bpf.o');
  const type = object.btf.find('struct', flowSettings.cName);
  assert.equal(type?.size, flowSettings.size);
  assert.deepEqual(
    Object.values<FieldSpec>(flowSettings.fields).map(([name, , offset]) => [name, offset * 8]),
    type.members.filter(({ name }) => name !== 'pad').map(({ name, bitOffset }) => [name, bitOffset]),
  );
});

/** The unit that a constant's name ends with. */
function unitOf(name: string): string {
  if (name.endsWith('_BPS')) return ' bit/s';
  if (name.endsWith('_MS')) return ' ms';
  return name.endsWith('_BYTES') ? ' bytes' : '';
}

describe('the numbers of abi.ts against abi.h', () => {
  it('reasons', () => {
    const inC = [...enumerators('reason')].map(([name, value]) => [
      name.replace(/^(DROP|REASON)_/, '').toLowerCase(),
      value,
    ]);
    assert.deepEqual(
      inC,
      abi.reasons.map((reason, value) => [reason, value]),
    );
  });
  it('directions', () => {
    assert.deepEqual([...enumerators('direction').values()], [0, 1]);
    assert.deepEqual(
      [...enumerators('direction').keys()],
      abi.directions.map((name) => `DIRECTION_${name.toUpperCase()}`),
    );
  });
  it('flags, identities, action and version', () => {
    assert.deepEqual([...enumerators('endpoint_flag').values()], Object.values(abi.endpointFlag));
    assert.deepEqual([...enumerators('conntrack_flag').values()], Object.values(abi.conntrackFlag));
    assert.deepEqual([...enumerators('reserved_identity').values()], Object.values(abi.reservedIdentity));
    assert.deepEqual([...enumerators('reserved_rule').values()], Object.values(abi.reservedRule));
    assert.deepEqual([...enumerators('policy_action').values()], [abi.ACTION_ALLOW]);
    assert.deepEqual([...enumerators('config_flag').values()], Object.values(abi.configFlag));
    assert.deepEqual(
      [...enumerators('event_kind').keys()],
      abi.eventKinds.map((kind) => `EVENT_${kind.toUpperCase()}`),
    );
    assert.match(header('abi.h'), new RegExp(`#define POLICY_ANY_PORT ${abi.POLICY_ANY_PORT}\n`));
    assert.match(header('abi.h'), new RegExp(`#define ABI_VERSION ${abi.ABI_VERSION}\\n`));
    const shift = abi.ENDPOINT_NODE_IFINDEX_SHIFT;
    assert.match(header('abi.h'), new RegExp(`#define ENDPOINT_NODE_IFINDEX_SHIFT ${shift}\\n`));
    assert.match(header('abi.h'), /#define POLICY_EXACT_BITS \(32 \+ 32 \+ 8\)\n/);
    assert.equal(abi.POLICY_EXACT_BITS, 32 + 32 + 8);
    assert.match(header('abi.h'), new RegExp(`#define IPCACHE_EXACT_BITS ${abi.IPCACHE_EXACT_BITS}\\n`));
  });
});

describe('the reference pages against the code', () => {
  it('docs/reference/drop-reasons.md has every reason, in order', () => {
    const rows = [...doc('drop-reasons.md').matchAll(/^\| `(\w+)` +\| (\d+) +\|/gm)].map((row) => [
      row[1],
      Number(row[2]),
    ]);
    assert.deepEqual(rows, abi.reasons.map((reason, value) => [reason, value]).slice(1));
  });
  it('docs/reference/limits.md has the size of every map', () => {
    for (const [name, map] of spec.maps) {
      if (map.maxEntries > 1)
        assert.match(doc('limits.md'), new RegExp(`^\\| \`${name}\` +\\| ${map.maxEntries} +\\|`, 'm'));
    }
  });
  it('docs/reference/limits.md has every conntrack time', () => {
    const constants = [...header('conntrack.h').matchAll(/#define (CONNTRACK_\w+)_NS \((\d+) \* NS_PER_S\)/g)];
    constants.push(
      .../#define (\w+_TIMEOUT)_NS \((\d+) \* 1000000000ULL\)/g[Symbol.matchAll](
        header('fragment.h') + header('correspondent.h'),
      ),
    );
    assert.ok(constants.length >= 12);
    for (const [, name, seconds] of constants) {
      assert.match(doc('limits.md'), new RegExp(`^\\| \`${name}\` +\\| ${seconds} s +\\|`, 'm'));
    }
  });
  it('connections are alive for as long as the programs remember them', () => {
    for (const [name, seconds] of Object.entries(connectionLifetimesS)) {
      const constant = name.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
      assert.match(header('conntrack.h'), new RegExp(`#define CONNTRACK_${constant}_NS \\(${seconds} \\* NS_PER_S\\)`));
    }
  });
  it('docs/reference/limits.md has the numbers of the shaper and the parser', () => {
    const eventsPerWindow = Number(/#define EVENTS_PER_WINDOW (\d+)/.exec(header('events.h'))?.[1]);
    const extensionHeaders = Number(/#define EXTENSION_HEADERS_MAX (\d+)/.exec(header('parse.h'))?.[1]);
    const wanted = {
      ...Object.fromEntries(
        Object.entries(sizes)
          .filter(([name]) => /^[A-Z_]+$/.test(name))
          .map(([name, value]) => [name, `${String(value)}${unitOf(name)}`]),
      ),
      SILENCE_NS: `${Number(/#define SILENCE_NS (\d+)ULL/.exec(header('shaper.bpf.c'))?.[1]) / 1e6} ms`,
      FLOWS: String(/#define FLOWS (\d+)/.exec(header('shaper.bpf.c'))?.[1]),
      EXTENSION_HEADERS_MAX: `${extensionHeaders}`,
      EVENTS_PER_WINDOW: `${eventsPerWindow}`,
    };
    for (const [name, value] of Object.entries(wanted)) {
      assert.match(doc('limits.md'), new RegExp(`^\\| \`${name}\` +\\| ${value} +\\|`, 'm'));
    }
  });
});

/** Objects depend on the compiler's major version: the committed ones are clang 14's (Debian 12). */
const committedClang = 14;

function clangMajor(): number | undefined {
  try {
    const text = execFileSync('clang', ['--version'], { encoding: 'utf8', stdio: 'pipe' });
    return Number(/clang version (\d+)/.exec(text)?.[1]);
  } catch {
    return undefined;
  }
}

const major = clangMajor();
const skip =
  major === committedClang
    ? false
    : `needs clang ${committedClang}, has ${major === undefined ? 'none' : `clang ${major}`}`;

it('the committed objects are what clang makes of bpf/', { skip }, () => {
  const out = mkdtempSync(join(tmpdir(), 'sluice-bpf-'));
  try {
    execFileSync('make', ['-s', '-C', join(root, 'bpf'), `OUT=${out}`], { stdio: 'pipe' });
    const committed = dirname(endpointObjectPath());
    assert.deepEqual(readdirSync(out).sort(), readdirSync(committed).sort());
    for (const name of readdirSync(out)) {
      const same = readFileSync(join(out, name)).equals(readFileSync(join(committed, name)));
      assert.ok(same, `${name}: run \`make -C bpf\` and commit bpf/build`);
    }
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
});
