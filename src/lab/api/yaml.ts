/** The YAML parser, loaded when a request needs it. In a bundle, the package itself has no named exports. */
export { parse } from 'yaml';
