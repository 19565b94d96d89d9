import { compareText } from '../core/labels.ts';

/**
 * JSON text as Go's encoding/json writes a decoded value: keys in byte order, no spaces, `<`, `>`, `&`, U+2028 and
 * U+2029 escaped, numbers in the shortest form of the double. Chained plugins are stored in this form, so that
 * attachments equal the ones Spiderpool generates, byte for byte.
 */
export function goJson(value: unknown): string {
  if (typeof value === 'string') return goString(value);
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : JSON.stringify(value);
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  if (Array.isArray(value)) return `[${value.map(goJson).join(',')}]`;
  // Serialised from entries: an object rebuilt with sorted keys would put integer-like keys first again.
  const members = Object.entries(value).sort(([a], [b]) => compareUtf8(a, b));
  return `{${members.map(([key, inner]) => `${goString(key)}:${goJson(inner)}`).join(',')}}`;
}

/** A string as Go writes it; also right for hand-ordered objects. */
export function goString(text: string): string {
  return JSON.stringify(text).replace(
    /[<>&\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** UTF-8 byte order, which is code point order; UTF-16 order differs above U+FFFF. */
function compareUtf8(a: string, b: string): number {
  const isAscii = /^[\0-\x7f]*$/;
  if (isAscii.test(a) && isAscii.test(b)) return compareText(a, b);
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Members in the order given, undefined ones left out: the layout of a Go struct with omitempty. */
export function goStruct(members: readonly (readonly [key: string, value: unknown])[]): string {
  const present = members.filter(([, value]) => value !== undefined);
  return `{${present.map(([key, value]) => `${goString(key)}:${value instanceof RawJson ? value.text : goJson(value)}`).join(',')}}`;
}

/** JSON text to be put in as it is. */
export class RawJson {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  static array(elements: readonly string[]): RawJson {
    return new RawJson(`[${elements.join(',')}]`);
  }
}
