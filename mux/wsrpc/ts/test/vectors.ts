// The vectors of testdata/vectors.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

interface Vector {
  name: string;
  text?: string;
  binary?: string;
  written?: boolean;
  close?: number;
}

/** Reads a file of vectors. */
export const vectors = (name: string): Vector[] => {
  const list = JSON.parse(readFileSync(new URL(`../../../testdata/vectors/${name}`, import.meta.url), "utf8")) as Vector[];
  assert.ok(list.length > 10, `${name} has ${list.length} vectors`);
  return list;
};

/** The bytes that hex says. */
export const unhex = (hex: string) => new Uint8Array(Buffer.from(hex, "hex")).buffer;
