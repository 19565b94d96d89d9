/**
 * Kubernetes resource.Quantity ("100M", "10Mi", "1e3", "1500m") as an exact integer. What is read, and as what, is
 * k8s.io/apimachinery/pkg/api/resource/quantity.go's (ParseQuantity, Value); the test's table comes from that code.
 */

const decimalExponents: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  '': 0,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const binaryExponents: Readonly<Record<string, number>> = { Ki: 10, Mi: 20, Gi: 30, Ti: 40, Pi: 50, Ei: 60 };

/** Kubernetes' largest quantity: what is larger is read as this. */
const largest = 2n ** 63n - 1n;
/** More digits, or a larger exponent, change nothing but the time it takes: the value is beyond the largest, or below 1. */
const maxDigits = 40;
const maxExponent = 100;

/**
 * `<sign><digits>[.<digits>]<suffix>`; "K" is not a suffix. Without any digit it is no quantity to us; Kubernetes takes some
 * such texts for 0 ("M", ".") and refuses others ("Ei").
 */
const pattern = /^([+-]?)(?=\.?[0-9])0*([0-9]*)(?:\.([0-9]*))?(Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+|[numkMGTPE]?)$/;

/**
 * The integer value, rounded away from zero as Quantity.Value() does ("1500m" → 2n).
 * Undefined when the text is no quantity; never throws.
 */
export function parseQuantity(text: string): bigint | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const [, sign = '', whole = '', fraction = '', suffix = ''] = match;
  const magnitude = magnitudeOf(whole, shortened(fraction), scaleOf(suffix));
  return sign === '-' ? -magnitude : magnitude;
}

function magnitudeOf(whole: string, fraction: string, scale: Scale): bigint {
  const numerator = BigInt(`${whole.slice(0, maxDigits)}${fraction}` || '0') * scale.numerator;
  const denominator = 10n ** BigInt(fraction.length) * scale.denominator;
  const magnitude = (numerator + denominator - 1n) / denominator;
  const isBeyond = whole.length > maxDigits || magnitude > largest;
  return isBeyond ? largest : magnitude;
}

/** What is cut off may still decide that the value is rounded up. */
function shortened(fraction: string): string {
  const rest = fraction.slice(maxDigits);
  return `${fraction.slice(0, maxDigits)}${/[1-9]/.test(rest) ? '1' : ''}`;
}

interface Scale {
  readonly numerator: bigint;
  readonly denominator: bigint;
}

function scaleOf(suffix: string): Scale {
  const binary = binaryExponents[suffix];
  if (binary !== undefined) return { numerator: 1n << BigInt(binary), denominator: 1n };
  const exponent = decimalExponents[suffix] ?? Number(suffix.slice(1));
  const bounded = Math.max(-maxExponent, Math.min(maxExponent, exponent));
  return bounded >= 0
    ? { numerator: 10n ** BigInt(bounded), denominator: 1n }
    : { numerator: 1n, denominator: 10n ** BigInt(-bounded) };
}
