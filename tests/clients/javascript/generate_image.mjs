// One call of the Vercel AI SDK's generateImage, described by a JSON argument; prints what came of it as JSON.
//
// Its packages lie beside the Python ones under target/, so they are imported from the folder of NODE_PACKAGES.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(join(process.env.NODE_PACKAGES, "package.json"));
const packages = ["ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible"];
const [{ generateImage }, { createOpenAI }, { createOpenAICompatible }] = await Promise.all(
  packages.map((name) => import(pathToFileURL(resolve(name)))),
);

const { provider, url, model, ...call } = JSON.parse(process.argv[2]);
const settings = { baseURL: `${url}/v1`, apiKey: "unused", name: "afterimage" };
const models = provider === "openai" ? createOpenAI(settings) : createOpenAICompatible(settings);

try {
  const { images, warnings, providerMetadata, usage } = await generateImage({
    model: models.imageModel(model),
    maxRetries: 0,
    ...call,
  });
  const pictures = images.map(({ base64, mediaType }) => ({ base64, mediaType }));
  console.log(JSON.stringify({ pictures, warnings, providerMetadata, usage }));
} catch (error) {
  console.log(JSON.stringify({ error: { status: error.statusCode, message: error.message } }));
}
