interface Manifest {
  name?: string;
  version?: string;
  dependencies?: Readonly<Record<string, string>>;
}

interface ManifestSources {
  /** Of this repository: the version, and the range of each dependency. */
  root: Manifest;
  /** What is the package's own. A range in here is for what the repository has in a version that Node 20 cannot run. */
  template: Manifest;
  /** What the package's files import. */
  packages: ReadonlySet<string>;
}

/** The package's package.json. Throws when a dependency is imported and not declared, or declared for nothing. */
export function toClientManifest({ root, template, packages }: ManifestSources): Manifest {
  const needless = Object.keys(template.dependencies ?? {}).filter((dependency) => !packages.has(dependency));
  if (needless.length > 0) throw new Error(`the client does not import ${needless.join(", ")}`);
  const dependencies: Record<string, string> = {};
  for (const dependency of [...packages].sort()) {
    const range = template.dependencies?.[dependency] ?? root.dependencies?.[dependency];
    if (range === undefined) throw new Error(`${dependency} is no dependency of this repository`);
    dependencies[dependency] = range;
  }
  if (root.version === undefined) throw new Error("the repository has no version");
  const { name, ...rest } = template;
  return { name, version: root.version, ...rest, dependencies };
}
