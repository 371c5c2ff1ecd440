// What requests may hold, as the service's OpenAPI document has it: texts, limits, choices, defaults.

import { api } from "./client.js";

/** @type {Record<string, any>} */
let schemas = {};

/** Fetches the document, once. */
export async function loadSchemas() {
  if (!Object.keys(schemas).length) schemas = (await api.openapi()).components.schemas;
}

/** The schema behind references, and of `X or null` that of X. @returns {any} */
function resolve(schema) {
  if (schema.$ref) return resolve(schemas[schema.$ref.split("/").pop()]);
  const kinds = (schema.anyOf || []).filter((kind) => kind.type !== "null");
  return kinds.length ? resolve(kinds[0]) : schema;
}

/**
 * The schema of a field, with its own description and default.
 * @param {string} model such as "EditRequest" @param {string} path such as "p2p.threshold"
 */
export function field(model, path) {
  let parent = schemas[model];
  const names = path.split(".");
  for (const name of names.slice(0, -1)) parent = resolve(parent.properties[name]);
  const own = parent.properties[names[names.length - 1]];
  return { ...resolve(own), description: own.description || "", default: own.default };
}

/** The fields of a model, or of the object in one of its fields; none where there is no such field. @returns {string[]} */
export function names(model, path = "") {
  const own = path ? schemas[model].properties[path] : schemas[model];
  return Object.keys((own && resolve(own).properties) || {});
}

/** What the service takes for a field that is left out; undefined where there is none, or no such field. @param {string} model @param {string} path */
export function usual(model, path) {
  const [name, inner] = path.split(".");
  return names(model, inner ? name : "").includes(inner || name) ? field(model, path).default : undefined;
}

/** What a field of one of several values may be, or each item of a list. @returns {string[]} */
export const choices = (model, path) => {
  const own = field(model, path);
  const schema = own.type === "array" ? resolve(own.items) : own;
  return schema.enum || (schema.const === undefined ? [] : [schema.const]);
};

/**
 * The choices as pairs for a list box; the first one leaves it to the service.
 * @param {string} model @param {string} path @param {Record<string, string>} [words]
 * @returns {[string, string][]}
 */
export function options(model, path, words = {}) {
  const schema = field(model, path);
  const none = (schema.default ?? null) === null ? "chosen by the service" : `${words[schema.default] || schema.default} (default)`;
  const others = choices(model, path).filter((value) => value !== schema.default);
  /** @type {[string, string][]} */
  const pairs = others.map((value) => [value, words[value] || value]);
  return [["", none], ...pairs];
}

/** The bounds of a number in words. */
function bounds(schema) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  if (minimum !== undefined && maximum !== undefined) return `${minimum} to ${maximum}`;
  return [
    minimum !== undefined && `at least ${minimum}`, exclusiveMinimum !== undefined && `above ${exclusiveMinimum}`,
    maximum !== undefined && `at most ${maximum}`, exclusiveMaximum !== undefined && exclusiveMaximum < 2 ** 53 && `below ${exclusiveMaximum}`,
  ].filter(Boolean).join(", ");
}

/** What a field is, its limits and its default, in one line. */
export function hint(model, path) {
  const schema = field(model, path);
  const item = schema.type === "array" ? resolve(schema.items) : schema;
  const limits = [
    bounds(item),
    schema.type === "array" && schema.maxItems && `up to ${schema.maxItems}, commas between`,
    schema.type === "array" && !schema.maxItems && "commas between",
    schema.default !== null && schema.default !== undefined && ["number", "integer"].includes(schema.type) && `empty: ${schema.default}`,
  ].filter(Boolean).join("; ");
  const text = schema.description.replace(/`/g, "");
  return limits ? `${text.replace(/\.$/, "")} (${limits}).` : text;
}

/** What a number must keep to, said as a wish: "Write a whole number from 1 to 200." */
function wish(schema, lead) {
  const limits = bounds(schema);
  const kind = schema.type === "integer" ? "a whole number" : "a number";
  return `${lead} ${kind}${limits && (/^\d/.test(limits) ? ` from ${limits}` : `, ${limits}`)}.`;
}

const fits = (schema, value) =>
  Number.isFinite(value) && (schema.type !== "integer" || Number.isInteger(value)) &&
  !(value < schema.minimum) && !(value > schema.maximum) &&
  !(value <= schema.exclusiveMinimum) && !(value >= schema.exclusiveMaximum);

/**
 * What is wrong with what was written in a field of numbers, in our own words; empty if nothing is.
 * @param {string} model @param {string} path @param {string} written one number, or several with commas between
 */
export function numberFault(model, path, written) {
  const schema = field(model, path);
  const parts = written.split(/[,;\s]+/).filter(Boolean);
  if (!parts.length) return "";
  if (schema.type !== "array") {
    return parts.length === 1 && fits(schema, Number(parts[0])) ? "" : wish(schema, "Write");
  }
  const item = resolve(schema.items);
  const wrong = parts.find((part) => !fits(item, Number(part)));
  if (wrong !== undefined) return `“${wrong}” does not fit. ${wish(item, "Each is")}`;
  return parts.length > schema.maxItems ? `These are ${parts.length}; at most ${schema.maxItems}.` : "";
}

/** Whether a text has the field's pattern and length. @param {string} model @param {string} path @param {string} written */
export function textFits(model, path, written) {
  const schema = field(model, path);
  return written.length <= (schema.maxLength ?? Infinity) && (!schema.pattern || new RegExp(schema.pattern, "u").test(written));
}
