/** Shell patterns in pool names: `*`, `?` and `[a-z]`, as Go's path.Match reads them, within one path segment. */

export function isWildcard(name: string): boolean {
  return /[*?[]/.test(name);
}

/** Undefined when the pattern is malformed (an unclosed bracket). */
export function compileWildcard(pattern: string): ((name: string) => boolean) | undefined {
  let source = '';
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern.charAt(i);
    if (char === '*') source += '[^/]*';
    else if (char === '?') source += '[^/]';
    else if (char === '[') {
      const close = pattern.indexOf(']', i + 1);
      const body = pattern.slice(i + 1, close);
      if (close < 0 || body === '' || body === '^') return undefined;
      source += `[${body.replace(/[\\[]/g, '\\$&').replace(/^!/, '\\!')}]`;
      i = close;
    } else source += char.replace(/[.+^${}()|\\\]]/g, '\\$&');
  }
  try {
    const expression = new RegExp(`^${source}$`);
    return (name) => expression.test(name);
  } catch {
    return undefined;
  }
}
