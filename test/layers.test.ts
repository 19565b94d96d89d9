/**
 * The import table of the design, enforced. The folders of src/ are layers and an import points down; every edge
 * that is not allowed stands in `forbidden` with its reason, so the table is complete and says why.
 *
 * Files are parsed with the TypeScript compiler: imports, re-exports, `import()` and `import type` all count.
 */

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import path from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const folders = [
  'core',
  'api',
  'kernel',
  'policy',
  'ipam',
  'kube',
  'datapath',
  'cni',
  'agent',
  'controller',
  'lab',
  'cli',
] as const;
type Folder = (typeof folders)[number];

/** What each folder may import besides itself. */
const allowed: Readonly<Record<Folder, readonly Folder[]>> = {
  core: [],
  api: ['core'],
  kernel: ['core'],
  policy: ['api', 'core'],
  ipam: ['api', 'core'],
  kube: ['api', 'core'],
  datapath: ['kernel', 'api', 'core'],
  cni: ['datapath', 'kernel', 'ipam', 'kube', 'api', 'core'],
  agent: ['cni', 'datapath', 'kernel', 'policy', 'ipam', 'kube', 'api', 'core'],
  controller: ['policy', 'ipam', 'kube', 'api', 'core'],
  lab: ['agent', 'controller', 'cni', 'datapath', 'kernel', 'policy', 'ipam', 'kube', 'api', 'core'],
  cli: ['lab', 'agent', 'controller', 'cni', 'datapath', 'kernel', 'policy', 'ipam', 'kube', 'api', 'core'],
};

const above = {
  api: ['kernel', 'policy', 'ipam', 'kube', 'datapath', 'cni', 'agent', 'controller', 'lab', 'cli'],
  middle: ['datapath', 'cni', 'agent', 'controller', 'lab', 'cli'],
} as const satisfies Record<string, readonly Folder[]>;

/** Every other edge, and what would break with it. */
const forbidden: readonly { readonly from: Folder; readonly to: readonly Folder[]; readonly reason: string }[] = [
  { from: 'core', to: ['api', ...above.api], reason: 'core is what everyone stands on: it knows nothing but values' },
  {
    from: 'api',
    to: above.api,
    reason: 'api says what objects look like, not what is done with them; the web page can use it',
  },
  {
    from: 'kernel',
    to: ['api'],
    reason: 'the kernel knows no Kubernetes; a type of the API in a system call wrapper is a layer mixed up',
  },
  {
    from: 'kernel',
    to: ['policy', 'ipam', 'kube'],
    reason: 'parts of one row are independent, so that each can be tested, and replaced, alone',
  },
  {
    from: 'policy',
    to: ['kernel', 'kube'],
    reason: 'the compiler is a pure function; with I/O in reach it would not stay one',
  },
  { from: 'policy', to: ['ipam'], reason: 'policies see addresses, not where they were allocated' },
  {
    from: 'ipam',
    to: ['kernel', 'kube'],
    reason: 'the allocator is a pure function; who stores its book is the caller’s',
  },
  { from: 'ipam', to: ['policy'], reason: 'which address a pod gets does not depend on who may talk to it' },
  {
    from: 'kube',
    to: ['kernel', 'policy', 'ipam'],
    reason: 'the API client serves the controller too, which has no privileges and needs no system calls',
  },
  { from: 'kernel', to: above.middle, reason: 'imports point down' },
  {
    from: 'policy',
    to: above.middle,
    reason: 'imports point down; the datapath’s entry type is structurally the same, and a test compares them',
  },
  { from: 'ipam', to: above.middle, reason: 'imports point down' },
  { from: 'kube', to: above.middle, reason: 'imports point down' },
  {
    from: 'datapath',
    to: ['policy', 'ipam', 'kube'],
    reason: 'the datapath takes numbers and prefixes; it must be testable without a policy or a cluster',
  },
  { from: 'datapath', to: ['cni', 'agent', 'controller', 'lab', 'cli'], reason: 'imports point down' },
  {
    from: 'cni',
    to: ['policy'],
    reason: 'plugins ask the agent for a programmed endpoint; compiling policy is the agent’s, in one place',
  },
  {
    from: 'cni',
    to: ['agent', 'controller', 'lab', 'cli'],
    reason: 'imports point down; the agent hands its parts to the plugins',
  },
  {
    from: 'agent',
    to: ['controller'],
    reason: 'node daemon and cluster singleton share the API and nothing else: they are upgraded one after the other',
  },
  { from: 'agent', to: ['lab', 'cli'], reason: 'the product must not be able to tell the lab from a cluster' },
  {
    from: 'controller',
    to: ['agent'],
    reason: 'node daemon and cluster singleton share the API and nothing else: they are upgraded one after the other',
  },
  {
    from: 'controller',
    to: ['kernel', 'datapath', 'cni'],
    reason: 'the controller needs no privileges, so it must not have the means to use them',
  },
  { from: 'controller', to: ['lab', 'cli'], reason: 'the product must not be able to tell the lab from a cluster' },
  { from: 'lab', to: ['cli'], reason: 'commands wire; what they wire does not know of them' },
];

const pureFolders: readonly Folder[] = ['core', 'api', 'policy', 'ipam'];
/** Modules without effects outside the process. */
const pureModules = new Set([
  'node:util',
  'node:buffer',
  'node:string_decoder',
  'node:crypto',
  'node:timers',
  'node:assert',
]);
/** One door per hazard. */
const doors: readonly { readonly module: string; readonly files: readonly string[]; readonly instead: string }[] = [
  { module: 'koffi', files: ['src/kernel/ffi.ts'], instead: 'use the typed wrappers of src/kernel' },
  {
    module: '@kubernetes/client-node',
    // The demo without kubectl talks to the cluster as an outsider does: with a client that is not ours.
    files: ['src/kube/config.ts', 'src/lab/walkthrough/api-cluster.ts'],
    instead: 'use src/kube/client.ts and informer.ts',
  },
];
/** Used by tests and by what only tests use; none of it is installed with the product. */
const testModules = ['fast-check', 'node:test', 'typescript', 'tsx', 'esbuild'];

interface Import {
  readonly specifier: string;
  /** Path from the repository's root, for relative imports. */
  readonly target: string | undefined;
  readonly line: number;
}

interface SourceFile {
  /** Path from the repository's root: "src/core/ip.ts". */
  readonly file: string;
  readonly folder: string;
  readonly isTest: boolean;
  readonly imports: readonly Import[];
  readonly tree: ts.SourceFile;
}

const root = fileURLToPath(new URL('..', import.meta.url));
const files = readSources();

function readSources(): SourceFile[] {
  return readdirSync(path.join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.split(path.sep).includes('testdata'))
    .sort()
    .map((name) => parseFile(path.join('src', name)));
}

function parseFile(file: string): SourceFile {
  const tree = ts.createSourceFile(file, readFileSync(path.join(root, file), 'utf8'), ts.ScriptTarget.ES2023, true);
  const imports = importsOf(tree).map(({ specifier, line }): Import => {
    const target = specifier.startsWith('.') ? path.normalize(path.join(path.dirname(file), specifier)) : undefined;
    return { specifier, target, line };
  });
  return { file, folder: file.split(path.sep)[1] ?? '', isTest: file.endsWith('.test.ts'), imports, tree };
}

function importsOf(tree: ts.SourceFile): { specifier: string; line: number }[] {
  const found: { specifier: string; line: number }[] = [];
  walk(tree, (node) => {
    const specifier = specifierOf(node);
    if (specifier !== undefined) found.push({ specifier, line: lineOf(tree, node) });
  });
  return found;
}

function specifierOf(node: ts.Node): string | undefined {
  if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
    return ts.isStringLiteral(node.moduleSpecifier) ? node.moduleSpecifier.text : undefined;
  }
  if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument) && ts.isStringLiteral(node.argument.literal)) {
    return node.argument.literal.text;
  }
  if (!ts.isCallExpression(node)) return undefined;
  const isImport = node.expression.kind === ts.SyntaxKind.ImportKeyword;
  const isRequire = ts.isIdentifier(node.expression) && node.expression.text === 'require';
  const [argument] = node.arguments;
  return (isImport || isRequire) && argument !== undefined && ts.isStringLiteralLike(argument)
    ? argument.text
    : undefined;
}

function walk(node: ts.Node, visit: (node: ts.Node) => void): void {
  visit(node);
  ts.forEachChild(node, (child) => walk(child, visit));
}

function lineOf(tree: ts.SourceFile, node: ts.Node): number {
  return tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1;
}

function isFolder(name: string | undefined): name is Folder {
  return (folders as readonly (string | undefined)[]).includes(name);
}

/** "node:fs" for "fs" and "node:fs/promises"; undefined for what is not built in. */
function builtin(specifier: string): string | undefined {
  const name = specifier.replace(/^node:/, '');
  return specifier.startsWith('node:') || builtinModules.includes(name)
    ? `node:${name.split('/')[0] ?? ''}`
    : undefined;
}

/** Files that tests alone may use: they import what is not installed with the product, or a file that does. */
function testSupport(): Set<string> {
  const support = new Set<string>();
  for (let before = -1; before !== support.size;) {
    before = support.size;
    for (const { file, isTest, imports } of files) {
      if (
        !isTest &&
        imports.some(({ specifier, target }) => testModules.includes(specifier) || support.has(target ?? ''))
      )
        support.add(file);
    }
  }
  return support;
}

function expectNone(violations: readonly string[]): void {
  assert.equal(violations.join('\n'), '');
}

describe('the reader of imports', () => {
  it('sees every form', () => {
    const source = `import a from '1'; import type { b } from '2'; export * from '3'; export { c } from '4'; import '5';
      const d = await import('6'); type E = import('7').E; const f = require('8'); // import g from '9'
      const text = "import h from '10'"; export const i = 1;`;
    const tree = ts.createSourceFile('sample.ts', source, ts.ScriptTarget.ES2023, true);
    assert.equal(
      importsOf(tree)
        .map(({ specifier }) => specifier)
        .join(),
      '1,2,3,4,5,6,7,8',
    );
  });
});

describe('the import table', () => {
  it('decides every edge exactly once', () => {
    for (const from of folders) {
      for (const to of folders) {
        if (from === to) continue;
        const verdicts =
          Number(allowed[from].includes(to)) +
          forbidden.filter((row) => row.from === from && row.to.includes(to)).length;
        assert.equal(verdicts, 1, `${from} → ${to} stands ${verdicts} times in the tables`);
      }
    }
  });

  it('has no way back up', () => {
    const reach = (from: Folder): Folder[] => allowed[from].flatMap((to) => [to, ...reach(to)]);
    for (const folder of folders) assert.ok(!reach(folder).includes(folder), `${folder} reaches itself`);
  });

  it('knows every folder of src', () => {
    assert.ok(files.length > 50, `only ${files.length} files were found`);
    expectNone(
      [...new Set(files.map(({ folder }) => folder))]
        .filter((folder) => !isFolder(folder))
        .map((folder) => `src/${folder} is in no layer`),
    );
  });

  it('is kept by every file, tests included', () => {
    const violations: string[] = [];
    for (const { file, folder: from, isTest, imports } of files) {
      for (const { specifier, target, line } of imports) {
        if (target === undefined) continue;
        const to = target.split(path.sep)[1];
        if (isTest && target.startsWith(`test${path.sep}`)) continue; // what tests share
        if (!target.startsWith(`src${path.sep}`) || !isFolder(from) || !isFolder(to)) {
          violations.push(`${file}:${line} imports ${specifier}, which is outside the layers`);
        } else if (from !== to && !allowed[from].includes(to)) {
          const reason = forbidden.find((row) => row.from === from && row.to.includes(to))?.reason;
          violations.push(`${file}:${line} imports ${specifier}: ${from} must not import ${to}, since ${reason}`);
        }
      }
    }
    expectNone(violations);
  });
});

describe('hazards', () => {
  it(`${pureFolders.join(', ')} do no I/O`, () => {
    const support = testSupport();
    const violations = files
      .filter(
        ({ file, folder, isTest }) =>
          (pureFolders as readonly string[]).includes(folder) && !isTest && !support.has(file),
      )
      .flatMap(({ file, imports }) =>
        imports
          .filter(({ specifier }) => builtin(specifier) !== undefined && !pureModules.has(builtin(specifier) ?? ''))
          .map(({ specifier, line }) => `${file}:${line} imports ${specifier}: take what it gives as a parameter`),
      );
    expectNone(violations);
  });

  for (const { module, files: door, instead } of doors) {
    it(`${module} is imported by ${door.join(' and ')} only`, () => {
      const isModule = (specifier: string): boolean => specifier === module || specifier.startsWith(`${module}/`);
      const users = files.filter(({ imports }) => imports.some(({ specifier }) => isModule(specifier)));
      for (const file of door)
        assert.ok(
          users.some((user) => user.file === file),
          `${file} does not use ${module} any more`,
        );
      expectNone(
        users.filter(({ file }) => !door.includes(file)).map(({ file }) => `${file} imports ${module}: ${instead}`),
      );
    });
  }

  it('setns is called in src/kernel/netns.ts only (ffi.ts declares it)', () => {
    const users = new Set<string>();
    for (const { file, tree } of files) {
      walk(tree, (node) => {
        if ((ts.isIdentifier(node) || ts.isStringLiteralLike(node)) && node.text === 'setns') users.add(file);
      });
    }
    assert.deepEqual([...users], ['src/kernel/ffi.ts', 'src/kernel/netns.ts']);
  });

  it('nothing that setns runs is asynchronous: netns.ts has no await', () => {
    const netns = files.find(({ file }) => file === 'src/kernel/netns.ts');
    assert.ok(netns);
    walk(netns.tree, (node) => assert.ok(!ts.isAwaitExpression(node), `await in line ${lineOf(netns.tree, node)}`));
  });

  it('process.env and process.argv are read in src/cli only', () => {
    const violations: string[] = [];
    for (const { file, folder, isTest, tree } of files.filter(({ folder, isTest }) => folder !== 'cli' && !isTest)) {
      walk(tree, (node) => {
        if (!ts.isPropertyAccessExpression(node) || node.expression.getText(tree) !== 'process') return;
        if (['env', 'argv', 'exit'].includes(node.name.text))
          violations.push(
            `${file}:${lineOf(tree, node)} uses process.${node.name.text} (folder ${folder}, test ${isTest}): take it as a parameter`,
          );
      });
    }
    expectNone(violations);
  });

  it('what only tests may use is used by tests only', () => {
    const support = testSupport();
    // A command or a product module that pulled one of these in would not start on a user's machine.
    const product = [...support].filter((file) =>
      ['cli', 'agent', 'controller', 'cni'].includes(file.split(path.sep)[1] ?? ''),
    );
    expectNone(product.map((file) => `${file} needs a module that is not installed with the product`));
  });

  it('no file exports a default', () => {
    const violations: string[] = [];
    for (const { file, tree } of files) {
      for (const statement of tree.statements) {
        const isDefault =
          ts.canHaveModifiers(statement) &&
          ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.DefaultKeyword);
        if (ts.isExportAssignment(statement) || isDefault === true)
          violations.push(`${file}:${lineOf(tree, statement)}`);
      }
    }
    expectNone(violations);
  });
});
