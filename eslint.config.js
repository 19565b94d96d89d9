import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/** One door per hazard: each entry names the module that may use it and the alternative for everyone else. */
const doors = [
  { name: 'koffi', message: 'Foreign calls live in src/kernel/ffi.ts only; use the typed wrappers of src/kernel.' },
];

const packageImport = 'ImportExpression[source.value=/^(?!\\.|node:)/]';
/** A CommonJS package that is imported dynamically has in a bundle nothing but a default export; the types do not know. */
const namesOfPackage = {
  selector: `:not(MemberExpression[property.name="default"]) > AwaitExpression > ${packageImport}, :not(AwaitExpression) > ${packageImport}`,
  message:
    'Import a module of ours that exports what is needed from the package (src/core/yaml.ts), or take `.default`.',
};

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**', '**/*.mjs', 'bin/**', '.cache/**', 'eslint.config.js'] },
  js.configs.recommended,
  ...tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/require-await': 'off',
      'no-restricted-imports': ['error', { paths: doors }],
      'no-restricted-syntax': ['error', namesOfPackage],
      'no-restricted-exports': ['error', { restrictDefaultExports: { direct: true } }],
      'max-lines': ['error', { max: 500, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 70, skipBlankLines: true, skipComments: true }],
    },
  },
  { files: ['src/kernel/ffi.ts'], rules: { 'no-restricted-imports': 'off' } },
  {
    files: ['**/*.test.ts', 'bench/**', 'test/**'],
    rules: {
      'max-lines': 'off',
      'max-lines-per-function': 'off',
      // node:test's describe/it return promises that the runner awaits.
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', name: ['describe', 'it', 'test', 'suite'], package: 'node:test' },
          ],
        },
      ],
    },
  },
);
