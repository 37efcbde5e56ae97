package mux_test

import (
	"fmt"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/protobuf/proto"

	hellopb "oneport/proto/helloworld"
)

// A call over WebSocket reaches its handler in process: while that runs, the
// listener and the client's connection are all the sockets there are, at the first
// call as at the hundredth. One dialled, be it for a moment or for good, would show.
func TestWebSocketCallDialsNothing(t *testing.T) {
	const listenerAndClient = "2"
	question := &hellopb.HelloRequest{Name: howManySockets}
	request, err := proto.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := proto.Marshal(&hellopb.HelloReply{Message: listenerAndClient})
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			// A server of its own: another may not yet have closed the connection before.
			p, _ := startChild(t)
			ws := p.socket(scheme, "/grpc-ws")
			for range 50 {
				ws.send(websocket.BinaryMessage, string(request))
				ws.want(websocket.BinaryMessage, string(answer))
				ws.send(websocket.TextMessage, fmt.Sprintf(`{"name":%q}`, question.Name))
				ws.want(websocket.TextMessage, fmt.Sprintf(`{"message":%q}`, listenerAndClient))
			}
			ws.send(websocket.TextMessage, "")
			ws.wantClose(1000, "")
			ws.Close()
		})
	}
}
