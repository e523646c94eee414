// Makes the assets that are committed and embedded: `npm ci && npm run build`. With --check it writes nothing, and says whether
// what is committed is what the sources make.

import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "assets");
/** What the assets are made of, besides the packages that the lock names. */
const SOURCES = ["build.mjs", "package-lock.json", ...readdirSync(join(here, "src")).map((name) => `src/${name}`)].sort();
/** The name of the list of hashes by which a test without Node sees that the assets are stale. */
const HASHES = "SOURCES.sha256";

/** KaTeX has each font in three formats; every browser that can show this page reads woff2. */
const onlyWoff2 = {
  name: "only-woff2",
  setup(build) {
    build.onLoad({ filter: /katex\.min\.css$/ }, (args) => ({
      contents: readFileSync(args.path, "utf8").replace(/,url\([^)]*\.(?:woff|ttf)\) format\("[^"]*"\)/g, ""),
      loader: "css",
    }));
  },
};

async function bundle() {
  const result = await build({
    absWorkingDir: here,
    entryPoints: ["src/main.tsx"],
    outdir: target,
    bundle: true,
    splitting: true,
    format: "esm",
    target: ["chrome123", "firefox121", "safari17.5"],
    minify: true,
    legalComments: "none",
    jsx: "automatic",
    jsxImportSource: "preact",
    entryNames: "[name]",
    chunkNames: "[name]",
    assetNames: "[name]",
    loader: { ".woff2": "file" },
    plugins: [onlyWoff2],
    metafile: true,
    write: false,
  });
  const files = new Map(result.outputFiles.map((file) => [relative(target, file.path), Buffer.from(file.contents)]));
  for (const name of ["index.html", "theme.js", "icon.svg"]) files.set(name, readFileSync(join(here, "src", name)));
  files.set("LICENCES.txt", Buffer.from(licences(Object.keys(result.metafile.inputs))));
  files.set(HASHES, Buffer.from(SOURCES.map((name) => `${hash(readFileSync(join(here, name)))}  ${name}\n`).join("")));
  return files;
}

/** The packages that the bundle has parts of, with their licences. */
function licences(inputs) {
  const packages = new Set();
  for (const input of inputs) {
    const match = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input);
    if (match) packages.add(match[1]);
  }
  const parts = [...packages].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const { version, license, homepage } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((file) => /^licen[cs]e(\.|$)/i.test(file));
    if (!file) throw new Error(`${name} has no file with its licence`);
    const text = readFileSync(join(folder, file), "utf8").replaceAll("\r\n", "\n").trim();
    return `${name} ${version} (${license})\n${homepage ?? ""}\n\n${text}\n`;
  });
  return `The web page of pippin serve contains parts of these packages.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

/** Of the bytes without carriage returns: a checkout may have added some. */
function hash(bytes) {
  return createHash("sha256").update(bytes.filter((byte) => byte !== 13)).digest("hex");
}

const files = await bundle();
if (process.argv.includes("--check")) {
  const there = readdirSync(target);
  const stale = [...files].filter(([name, bytes]) => !there.includes(name) || hash(readFileSync(join(target, name))) !== hash(bytes));
  const names = [...stale.map(([name]) => name), ...there.filter((name) => !files.has(name))];
  if (names.length > 0) {
    console.error(`stale, npm run build makes them anew: ${names.join(", ")}`);
    process.exit(1);
  }
} else {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target);
  for (const [name, bytes] of files) writeFileSync(join(target, name), bytes);
  const total = [...files.values()].reduce((sum, bytes) => sum + bytes.length, 0);
  console.log(`${files.size} files, ${Math.round(total / 1024)} KiB`);
}
