/** Name and label rules (k8s.io/apimachinery/pkg/util/validation), with that package's messages. */

const label1123 = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const subdomain1123 = `${label1123}(\\.${label1123})*`;
const label1035 = '[a-z]([-a-z0-9]*[a-z0-9])?';
const qualifiedPart = '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]';

const tooLong = (max: number): string => `must be no more than ${max} characters`;
const compiled = new Map<string, RegExp>();

function matches(pattern: string, text: string): boolean {
  let regex = compiled.get(pattern);
  if (regex === undefined) {
    regex = new RegExp(`^(?:${pattern})$`);
    compiled.set(pattern, regex);
  }
  return regex.test(text);
}

/** Each returns the messages of what is wrong; empty when the text is fine. */
export function dns1123Label(text: string): string[] {
  const wrong: string[] = [];
  if (text.length > 63) wrong.push(tooLong(63));
  if (!matches(label1123, text)) {
    wrong.push(
      matches(subdomain1123, text)
        ? 'must not contain dots'
        : `a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '${label1123}')`,
    );
  }
  return wrong;
}

export function dns1123Subdomain(text: string): string[] {
  const wrong: string[] = [];
  if (text.length > 253) wrong.push(tooLong(253));
  if (!matches(subdomain1123, text)) {
    wrong.push(
      `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '${subdomain1123}')`,
    );
  }
  return wrong;
}

export function dns1035Label(text: string): string[] {
  const wrong: string[] = [];
  if (text.length > 63) wrong.push(tooLong(63));
  if (!matches(label1035, text)) {
    wrong.push(
      `a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '${label1035}')`,
    );
  }
  return wrong;
}

/** Names of RBAC objects: anything that fits into a URL path segment. */
export function pathSegment(text: string): string[] {
  if (text === '.' || text === '..') return [`may not be '${text}'`];
  return ['/', '%'].filter((bad) => text.includes(bad)).map((bad) => `may not contain '${bad}'`);
}

/** Label and annotation keys: an optional DNS prefix and a name. */
export function qualifiedName(text: string): string[] {
  const parts = text.split('/');
  if (parts.length > 2) {
    return [
      `a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '${qualifiedPart}') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')`,
    ];
  }
  const wrong: string[] = [];
  const [prefix, name = ''] = parts.length === 2 ? parts : [undefined, text];
  if (prefix === '') wrong.push('prefix part must be non-empty');
  else if (prefix !== undefined) wrong.push(...dns1123Subdomain(prefix).map((message) => `prefix part ${message}`));
  if (name === '') wrong.push('name part must be non-empty');
  else if (name.length > 63) wrong.push(`name part ${tooLong(63)}`);
  if (!matches(qualifiedPart, name)) {
    wrong.push(
      `name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '${qualifiedPart}')`,
    );
  }
  return wrong;
}

export function labelValue(text: string): string[] {
  const wrong: string[] = [];
  if (text.length > 63) wrong.push(tooLong(63));
  if (!matches(`(${'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'})?`, text)) {
    wrong.push(
      `a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(${qualifiedPart})?')`,
    );
  }
  return wrong;
}

/** Port names (IANA_SVC_NAME). */
export function portName(text: string): string[] {
  const wrong: string[] = [];
  if (text.length > 15) wrong.push(tooLong(15));
  if (!matches('[-a-z0-9]+', text))
    wrong.push('must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)');
  if (!/[a-z]/.test(text)) wrong.push('must contain at least one letter (a-z)');
  if (text.includes('--')) wrong.push('must not contain consecutive hyphens');
  if (text.startsWith('-') || text.endsWith('-')) wrong.push('must not begin or end with a hyphen');
  return wrong;
}

export function environmentName(text: string): string[] {
  if (matches('[-._a-zA-Z][-._a-zA-Z0-9]*', text) || /^[\x20-\x3c\x3e-\x7e]+$/.test(text)) return [];
  return ["a valid environment variable name must consist only of printable ASCII characters other than '='"];
}

export function configMapKey(text: string): string[] {
  const wrong: string[] = [];
  if (text.length > 253) wrong.push(tooLong(253));
  if (!matches('[-._a-zA-Z0-9]+', text)) {
    wrong.push(
      "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    );
  }
  return wrong;
}
