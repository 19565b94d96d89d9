/** modules.dep as depmod(8) writes it: "kernel/x.ko.xz: kernel/y.ko.xz kernel/z.ko.xz", dependencies last first. */

/** Files to insert for the wanted modules, in order, each once. Built-in modules are in no file and are left out. */
export function moduleLoadOrder(modulesDep: string, wanted: readonly string[]): string[] {
  const dependencies = parseModulesDep(modulesDep);
  const order: string[] = [];
  for (const name of wanted) {
    const file = [...dependencies.keys()].find((path) => moduleName(path) === normalise(name));
    if (file === undefined) continue;
    for (const path of [...(dependencies.get(file) ?? [])].reverse().concat(file)) {
      if (!order.includes(path)) order.push(path);
    }
  }
  return order;
}

function parseModulesDep(text: string): Map<string, string[]> {
  const dependencies = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0)
      dependencies.set(
        line.slice(0, colon),
        line
          .slice(colon + 1)
          .split(' ')
          .filter(Boolean),
      );
  }
  return dependencies;
}

function moduleName(path: string): string {
  return normalise(path.slice(path.lastIndexOf('/') + 1).replace(/\.ko(\.\w+)?$/, ''));
}

function normalise(name: string): string {
  return name.replaceAll('-', '_');
}
