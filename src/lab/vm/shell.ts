/** Shell text for the guest. */

/** The word as a POSIX shell reads it back unchanged. */
export function quoteShell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

export function shellCommand(words: readonly string[]): string {
  return words.map(quoteShell).join(' ');
}

export function shellExports(env: Readonly<Record<string, string>>): string {
  return Object.entries(env)
    .map(([name, value]) => `export ${name}=${quoteShell(value)}\n`)
    .join('');
}
