// Servers of this repository, as processes.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const root = new URL("../../../../../", import.meta.url).pathname; // from build/test
const dir = mkdtempSync(join(tmpdir(), "grpc-ws-"));
const running = new Set<ChildProcess>();

/** A server that runs. */
export interface Server {
  /** Host and port. */
  address: string;
  /** Stops it, by default at once and without a word. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** Builds the program of the repository, or that of the browser check, which does what metadata ask for. */
export function build(program: "." | "./scripts/browser/server"): string {
  const file = join(dir, program == "." ? "oneport" : "browser");
  execFileSync("go", ["build", "-o", file, program], { cwd: root, stdio: "inherit" });
  return file;
}

/** Starts a program, and waits until it listens. */
export async function start(program: string, ...args: string[]): Promise<Server> {
  const addrFile = join(dir, `${Math.random()}.addr`);
  const child = spawn(program, ["--addr-file", addrFile, "--cert-dir", join(dir, "certs"), ...args], { stdio: "ignore" });
  running.add(child);
  while (!existsSync(addrFile) || !readFileSync(addrFile, "utf8")) {
    if (child.exitCode !== null) throw new Error(`${program} has ended with ${child.exitCode}`);
    await sleep(20);
  }
  return {
    address: readFileSync(addrFile, "utf8").trim(),
    async stop(signal = "SIGKILL") {
      running.delete(child);
      const exited = once(child, "exit");
      child.kill(signal);
      await exited;
    },
  };
}

process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});
