// What transport.mjs runs in the page: our client of grpc-ws.v1, with a transport that
// stays.
import { ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcWsTransport } from 'oneport-grpc-ws';
import { EchoService } from 'gen/echo/echo_pb.ts';

let client;

/** Makes the client; states are those that its socket goes through. */
window.openTransport = (baseUrl) => {
  window.states = [];
  client = createClient(EchoService, createGrpcWsTransport({ baseUrl, onStateChange: (state) => window.states.push(state) }));
};

/** Begins n calls of which none goes on before all have been answered, and counts those that end well. */
window.converseAtOnce = async (n) => {
  let missing = n;
  let all;
  const answered = new Promise((resolve) => { all = resolve; });
  async function* requests(i) {
    yield { message: `first ${i}` };
    await answered;
    yield { message: `second ${i}` };
  }
  const calls = Array.from({ length: n }, async (_, i) => {
    const answers = [];
    for await (const { message } of client.converse(requests(i))) {
      if (answers.push(message) === 1 && --missing === 0) {
        all();
      }
    }
    return answers.join() === `first ${i},second ${i}`;
  });
  return (await Promise.all(calls)).filter(Boolean).length;
};

/** Begins a call that does not end by itself, and returns when it has been answered. */
window.beginCall = async () => {
  async function* requests() {
    yield { message: 'a' };
    await new Promise(() => {});
  }
  const answers = client.converse(requests())[Symbol.asyncIterator]();
  await answers.next();
  window.callEnded = answers.next().then(() => 0, (err) => ConnectError.from(err).code);
};

/** Makes a call and returns its answer, or the code of its error. */
window.echoOnce = async (message) => {
  try {
    return (await client.echo({ message })).message;
  } catch (err) {
    return ConnectError.from(err).code;
  }
};
