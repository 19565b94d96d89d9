import { forbidden, invalid, notSupported, type FieldError } from '../api/field-error.ts';
import { spiderAnnotations } from '../api/spider.ts';
import type { SpiderMultusConfig } from '../api/spidermultusconfig.ts';

/** The rules for a SpiderMultusConfig's annotations. */

const generatedVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0'];

/** The CNI specification's rule for a network name. */
const networkName = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

const dnsSubdomain = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

export function validateMetadata(config: SpiderMultusConfig, old: SpiderMultusConfig | undefined): FieldError[] {
  const annotations = config.metadata.annotations ?? {};
  const errors = validateName(annotations[spiderAnnotations.crName], old);
  const version = annotations[spiderAnnotations.cniVersion];
  if (version !== undefined && !generatedVersions.includes(version)) {
    const { detail } = notSupported('', version, generatedVersions);
    errors.push(
      invalid(fieldOf(spiderAnnotations.cniVersion), version, `unsupported CNI version ${version}, ${detail}`),
    );
  }
  const network = annotations[spiderAnnotations.cniConfigName];
  if (network !== undefined && network !== '' && !networkName.test(network)) {
    const detail = 'a CNI network name starts with a letter or digit, followed by letters, digits, "_", ".", "-"';
    errors.push(invalid(fieldOf(spiderAnnotations.cniConfigName), network, detail));
  }
  return errors;
}

function validateName(name: string | undefined, old: SpiderMultusConfig | undefined): FieldError[] {
  const field = fieldOf(spiderAnnotations.crName);
  if (name === undefined) return [];
  if (!dnsSubdomain.test(name)) {
    return [invalid(field, name, 'must be a DNS-1123 subdomain: lower case letters, digits, "-" and "."')];
  }
  const before = old?.metadata.annotations?.[spiderAnnotations.crName];
  if (old === undefined || before === name) return [];
  return [forbidden(field, `is not changeable, it is ${before ?? 'unset'}; create another SpiderMultusConfig`)];
}

function fieldOf(annotation: string): string {
  return `metadata.annotations[${annotation}]`;
}
