interface Manifest {
  name?: string;
  version?: string;
  dependencies?: Readonly<Record<string, string>>;
}

interface ManifestSources {
  /** The repository's package.json: the version, and the range of each dependency. */
  root: Manifest;
  /** The package's own fields. It has a range only where the repository's version of a dependency excludes Node 20. */
  template: Manifest;
  /** The packages that the package's files import. */
  packages: ReadonlySet<string>;
}

/** The package's package.json. Throws if an imported dependency is undeclared, or a declared one is not imported. */
export function toClientManifest({ root, template, packages }: ManifestSources): Manifest {
  const unused = Object.keys(template.dependencies ?? {}).filter((dependency) => !packages.has(dependency));
  if (unused.length > 0)
    throw new Error(
      `the client does not import ${unused.join(", ")}: remove it from client/package.template.json`,
    );
  const dependencies: Record<string, string> = {};
  for (const dependency of [...packages].sort()) {
    const range = template.dependencies?.[dependency] ?? root.dependencies?.[dependency];
    if (range === undefined)
      throw new Error(`the client imports ${dependency}, which package.json does not list: add it`);
    dependencies[dependency] = range;
  }
  if (root.version === undefined) throw new Error("package.json has no version");
  const { name, ...rest } = template;
  return { name, version: root.version, ...rest, dependencies };
}
