// Prints name, version and licence of every package in the bundle: node licences.js META.json
const { readFileSync, readdirSync } = require("fs");
const inputs = Object.keys(JSON.parse(readFileSync(process.argv[2])).inputs);
const names = new Set(inputs.map((file) => file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]).filter(Boolean));
for (const name of [...names].sort()) {
  const folder = `${process.cwd()}/node_modules/${name}`;
  const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  console.log(`${name} ${version}, ${license}\n\n${file ? readFileSync(`${folder}/${file}`, "utf8").trim() : ""}\n\n`);
}
