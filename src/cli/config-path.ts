/** Where Spiderpool's charts mount its ConfigMap. */
export const defaultConfigPath = '/tmp/spiderpool/config-map/conf.yml';
