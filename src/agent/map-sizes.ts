/** `--map-size MAP=ENTRIES`. */
import { SluiceError } from '../core/error.ts';
import { type MapLimits, sizedMapNames } from '../datapath/maps.ts';

/** Throws SluiceError invalid_argument for an unknown map or a malformed size. */
export function parseMapSizes(texts: readonly string[]): MapLimits {
  const sizes: Record<string, number> = {};
  for (const text of texts) {
    const [, name = '', entries = ''] = /^([a-z_]+)=([1-9][0-9]{0,8})$/.exec(text) ?? [];
    if (!(sizedMapNames as readonly string[]).includes(name)) throw malformed(text);
    sizes[name] = Number(entries);
  }
  return sizes;
}

function malformed(text: string): SluiceError {
  return new SluiceError({
    code: 'invalid_argument',
    operation: 'read --map-size',
    object: text,
    what: 'no map with a size',
    remedy: `write MAP=ENTRIES, where MAP is one of ${sizedMapNames.join(', ')}`,
  });
}
