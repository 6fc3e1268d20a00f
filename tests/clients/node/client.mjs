// The Vercel AI SDK (`ai`) with zod, and the `openai` package, unchanged, against a running server:
// node client.mjs BASE_URL API_KEY. One line per case; exits 1 if one failed.

import assert from "node:assert/strict";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, stepCountIs, streamObject, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "hearth",
  baseURL: `${url}/v1`,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider("demo");
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: 60_000 });
const usual = { model, temperature: 0, maxRetries: 0, maxOutputTokens: 160 };

const PARIS = "What is the weather in Paris?";
const TWO_CITIES = "What is the weather in Paris and in Rome?";
const JORDAN = "Reply in JSON with keys country and capital. What is the capital of Jordan?";
const CAROL =
  "Extract name, age and city as JSON. Carol works as a nurse in Lisbon. " +
  "Carol is 68 years old and likes the colour purple.";
const WEATHER = { Paris: ["sunny", 21], Rome: ["rainy", 9] };
const ANSWER = "It is sunny and 21 degrees in Paris.";
const BOTH = `${ANSWER} It is rainy and 9 degrees in Rome.`;

const Country = z.object({ country: z.string(), capital: z.string() });
const Person = z.object({ name: z.string(), age: z.number().int(), city: z.string() });
const OBJECTS = [
  [JORDAN, Country, { country: "Jordan", capital: "Amman" }],
  [CAROL, Person, { name: "Carol", age: 68, city: "Lisbon" }],
];

// As the model learned it; zod would add keywords to the prompt.
const city = jsonSchema({
  type: "object",
  properties: { city: { type: "string", description: "The name of the city" } },
  required: ["city"],
});
const tools = {
  get_weather: tool({
    description: "Get the current weather for a city.",
    inputSchema: city,
    execute: async ({ city }) => {
      const [condition, temperature] = WEATHER[city];
      // With the blanks that the model learned: an object would be written without them.
      return `{"temperature": ${temperature}, "condition": "${condition}"}`;
    },
  }),
};

const cases = {
  async generateObject() {
    for (const [prompt, schema, expected] of OBJECTS) {
      const { object, finishReason } = await generateObject({ ...usual, schema, prompt });
      assert.deepEqual(object, expected);
      assert.equal(finishReason, "stop");
    }
  },

  async streamObject() {
    for (const [prompt, schema, expected] of OBJECTS) {
      const stream = streamObject({ ...usual, schema, prompt, onError: thrown });
      const states = [];
      for await (const state of stream.partialObjectStream) states.push(state);
      assert.ok(states.length > 2, "it comes in parts");
      assert.deepEqual(states.at(-1), expected);
      assert.deepEqual(await stream.object, expected);
    }
  },

  async everyZodObjectIsOfItsSchema() {
    const schema = z.object({
      id: z.string().regex(/^[A-Z]{2}-[0-9]{3}$/),
      size: z.number().int().min(3).max(7),
      colour: z.enum(["red", "green"]),
      tags: z.array(z.string().max(8)).min(1).max(2),
      shape: z.discriminatedUnion("kind", [
        z.object({ kind: z.literal("circle"), radius: z.number().int().min(1).max(9) }),
        z.object({ kind: z.literal("square"), side: z.number().int().min(1).max(9) }),
      ]),
      note: z.string().max(10).nullable(),
      day: z.iso.date().optional(),
    });
    for (const prompt of ["Hello!", "Tell me a story."]) {
      const { object } = await generateObject({ ...usual, maxOutputTokens: 1000, schema, prompt });
      schema.parse(object);
    }
  },

  async generateTextWithTools() {
    for (const [prompt, answer, calls] of [[PARIS, ANSWER, 1], [TWO_CITIES, BOTH, 2]]) {
      const result = await generateText({ ...usual, tools, prompt, stopWhen: stepCountIs(3) });
      assert.equal(result.text, answer);
      assert.equal(result.steps.length, 2);
      assert.equal(result.steps[0].finishReason, "tool-calls");
      assert.equal(result.steps[0].toolCalls.length, calls);
      assert.deepEqual(result.steps[0].toolCalls[0].input, { city: "Paris" });
    }
  },

  async streamTextWithTools() {
    for (const [prompt, answer, calls] of [[PARIS, ANSWER, 1], [TWO_CITIES, BOTH, 2]]) {
      const stop = stepCountIs(3);
      const stream = streamText({ ...usual, tools, prompt, stopWhen: stop, onError: thrown });
      const seen = {};
      let text = "";
      for await (const part of stream.fullStream) {
        assert.notEqual(part.type, "error");
        seen[part.type] = (seen[part.type] ?? 0) + 1;
        if (part.type === "text-delta") text += part.text;
      }
      assert.equal(text, answer);
      assert.equal(seen["tool-call"], calls);
      assert.equal(seen["tool-input-start"], calls);
      assert.ok(seen["tool-input-delta"] >= calls);
      assert.equal(seen["tool-result"], calls);
      assert.equal(await stream.finishReason, "stop");
      const whole = await generateText({ ...usual, tools, prompt, stopWhen: stop });
      assert.deepEqual((await stream.totalUsage).outputTokens, whole.totalUsage.outputTokens);
    }
  },

  async toolChoice() {
    for (const toolChoice of ["required", { type: "tool", toolName: "get_weather" }]) {
      const { toolCalls } = await generateText({ ...usual, tools, prompt: PARIS, toolChoice });
      assert.deepEqual(toolCalls.map((call) => call.input), [{ city: "Paris" }]);
    }
    const { toolCalls } = await generateText({ ...usual, tools, prompt: PARIS, toolChoice: "none" });
    assert.equal(toolCalls.length, 0);
  },

  async reasoning() {
    const request = { ...usual, system: "Think step by step.", prompt: "What is 7 + 27 + 14?" };
    const whole = await generateText(request);
    assert.equal(whole.reasoningText, "7 + 27 = 34. 34 + 14 = 48.");
    assert.equal(whole.text, "7 + 27 + 14 = 48");
    assert.ok(whole.usage.outputTokenDetails.reasoningTokens > 0);
    const stream = streamText({ ...request, onError: thrown });
    assert.equal(await stream.text, whole.text);
    assert.equal(await stream.reasoningText, whole.reasoningText);
  },

  async openaiZodResponseFormat() {
    for (const [content, schema, expected] of OBJECTS) {
      const request = {
        model: "demo",
        temperature: 0,
        messages: [{ role: "user", content }],
        response_format: zodResponseFormat(schema, "answer"),
      };
      const whole = await openai.chat.completions.parse(request);
      assert.deepEqual(whole.choices[0].message.parsed, expected);
      const final = await openai.chat.completions.stream(request).finalChatCompletion();
      assert.deepEqual(final.choices[0].message.parsed, expected);
      assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
    }
  },

  async openaiZodFunction() {
    const parameters = z.object({ city: z.string().describe("The name of the city") });
    const description = "Get the current weather for a city.";
    const request = {
      model: "demo",
      temperature: 0,
      messages: [{ role: "user", content: PARIS }],
      tools: [zodFunction({ name: "get_weather", description, parameters })],
    };
    const said = ({ choices: [{ message, finish_reason }] }) => {
      assert.equal(finish_reason, "tool_calls");
      return message.tool_calls.map(({ function: f }) => [f.name, f.parsed_arguments]);
    };
    const expected = [["get_weather", { city: "Paris" }]];
    assert.deepEqual(said(await openai.chat.completions.parse(request)), expected);
    const stream = openai.chat.completions.stream(request);
    assert.deepEqual(said(await stream.finalChatCompletion()), expected);
  },

  async errorsNameTheField() {
    const wrong = { type: "function", function: { name: "a" } };
    const asked = openai.chat.completions.create({
      model: "demo",
      messages: [{ role: "user", content: PARIS }],
      tools: [wrong, wrong],
    });
    await assert.rejects(asked, (e) => e.status === 400 && e.param === "tools[1].function.name");
  },
};

function thrown({ error }) {
  throw error;
}

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  const start = performance.now();
  try {
    await run();
    console.log(`ok ${name} (${((performance.now() - start) / 1000).toFixed(2)} s)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}\n`, error);
  }
}
console.log(`${Object.keys(cases).length - failed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
