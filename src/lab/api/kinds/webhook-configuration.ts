/** MutatingWebhookConfiguration and ValidatingWebhookConfiguration as objects; src/lab/api/admission.ts calls them. */
import { age } from '../age.ts';
import { numberAt, objectAt, objectsAt, setDefault, stringAt, stringsAt } from '../json.ts';
import type { JsonObject, KubeObject } from '../json.ts';
import type { Behaviour } from '../resource.ts';
import { field, type FieldError } from '../status.ts';
import { columns } from './columns.ts';

export const webhookConfiguration: Behaviour = {
  generation: true,
  columns: columns('Name', 'Webhooks#', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    objectsAt(object, 'webhooks').length,
    age(object.metadata.creationTimestamp, nowMs),
  ],
  defaults: (object) => {
    for (const webhook of objectsAt(object, 'webhooks')) {
      setDefault(webhook, 'failurePolicy', 'Fail');
      setDefault(webhook, 'matchPolicy', 'Equivalent');
      setDefault(webhook, 'namespaceSelector', {});
      setDefault(webhook, 'objectSelector', {});
      setDefault(webhook, 'timeoutSeconds', 10);
      if (object.kind === 'MutatingWebhookConfiguration') setDefault(webhook, 'reinvocationPolicy', 'Never');
      for (const rule of objectsAt(webhook, 'rules')) setDefault(rule, 'scope', '*');
      const reference = objectAt(webhook, 'clientConfig', 'service');
      if (reference !== undefined) setDefault(reference, 'port', 443);
    }
  },
  validate: (object: KubeObject) =>
    objectsAt(object, 'webhooks').flatMap((webhook, index) => validateWebhook(webhook, `webhooks[${index}]`)),
};

function validateWebhook(webhook: JsonObject, path: string): FieldError[] {
  const errors: FieldError[] = [];
  const name = stringAt(webhook, 'name') ?? '';
  if (name.split('.').length < 3) {
    errors.push(
      field.invalid(`${path}.name`, name, 'should be a domain with at least three segments separated by dots'),
    );
  }
  const effects = stringAt(webhook, 'sideEffects') ?? '';
  if (effects === '') errors.push(field.required(`${path}.sideEffects`, 'must specify one of None, NoneOnDryRun'));
  else if (effects !== 'None' && effects !== 'NoneOnDryRun') {
    errors.push(field.notSupported(`${path}.sideEffects`, effects, ['None', 'NoneOnDryRun']));
  }
  if (!stringsAt(webhook, 'admissionReviewVersions').includes('v1')) {
    errors.push(
      field.invalid(
        `${path}.admissionReviewVersions`,
        webhook.admissionReviewVersions ?? [],
        'must include at least one of v1, v1beta1',
      ),
    );
  }
  const seconds = numberAt(webhook, 'timeoutSeconds') ?? 10;
  if (seconds < 1 || seconds > 30) {
    errors.push(field.invalid(`${path}.timeoutSeconds`, seconds, 'the timeout value must be between 1 and 30 seconds'));
  }
  const client = objectAt(webhook, 'clientConfig');
  const [url, reference] = [stringAt(client, 'url'), objectAt(client, 'service')];
  if ((url === undefined) === (reference === undefined)) {
    errors.push(field.required(`${path}.clientConfig`, 'exactly one of url or service is required'));
  } else if (url !== undefined && !url.startsWith('https://')) {
    errors.push(field.invalid(`${path}.clientConfig.url`, url, "'https' is the only allowed URL scheme"));
  }
  return errors;
}
