/** Kubernetes resource.Quantity ("100M", "10Mi", "1e3", "1500m") as an exact integer. */

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

/** Longer numbers are refused: they are never meant, and an exponent can name more digits than memory holds. */
const maxDigits = 40;
const maxExponent = 40;

/** `<sign><digits>[.<digits>]<suffix>`, k8s.io/apimachinery/pkg/api/resource/quantity.go; "K" is not a suffix. */
const pattern = /^([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+|[numkMGTPE]?)$/;

/**
 * The integer value, rounded away from zero as Quantity.Value() does ("1500m" → 2n).
 * Undefined when the text is no quantity; never throws.
 */
export function parseQuantity(text: string): bigint | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const [, sign = '', whole = '', fractionAfterWhole, fractionAlone, suffix = ''] = match;
  const fraction = fractionAfterWhole ?? fractionAlone ?? '';
  if (whole.length + fraction.length > maxDigits) return undefined;
  const scale = scaleOf(suffix);
  if (scale === undefined) return undefined;
  const numerator = BigInt(whole + fraction) * scale.numerator;
  const denominator = 10n ** BigInt(fraction.length) * scale.denominator;
  const magnitude = (numerator + denominator - 1n) / denominator;
  return sign === '-' ? -magnitude : magnitude;
}

function scaleOf(suffix: string): { numerator: bigint; denominator: bigint } | undefined {
  const binary = binaryExponents[suffix];
  if (binary !== undefined) return { numerator: 1n << BigInt(binary), denominator: 1n };
  const exponent = decimalExponents[suffix] ?? Number(suffix.slice(1));
  if (!Number.isInteger(exponent) || Math.abs(exponent) > maxExponent) return undefined;
  return exponent >= 0
    ? { numerator: 10n ** BigInt(exponent), denominator: 1n }
    : { numerator: 1n, denominator: 10n ** BigInt(-exponent) };
}
