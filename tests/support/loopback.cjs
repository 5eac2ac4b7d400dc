// Loaded with `node --require` in front of a server we test against. Two rules:
// the server listens on 127.0.0.1 only, and it ends when the test run does.
"use strict";

const { Server } = require("node:net");

const listen = Server.prototype.listen;

// listen(port, host?, backlog?, callback?) and listen(options, callback?) are the forms that open a TCP port.
// Everything the caller says about the address is dropped, so that no option of a server can undo this.
Server.prototype.listen = function loopbackOnly(first, ...rest) {
  const options = first !== null && typeof first === "object" ? { ...first } : { port: first };
  const opensPort = options.port !== undefined && !Number.isNaN(Number(options.port));
  if (!opensPort) {
    return listen.call(this, first, ...rest);
  }
  const callbacks = rest.filter((argument) => typeof argument === "function");
  return listen.call(this, { ...options, port: Number(options.port), host: "127.0.0.1" }, ...callbacks);
};

// Our end of stdin closes when the test process is gone, whatever ended it.
process.stdin.on("end", () => process.exit(0)).on("error", () => process.exit(0));
process.stdin.resume();
