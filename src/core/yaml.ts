/** The YAML parser, for those who load it only when they need it. In a bundle, the package itself has no named exports. */
export { parse, parseAllDocuments } from 'yaml';
