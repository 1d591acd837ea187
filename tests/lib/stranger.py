"""A broker whose certificate is out of its time."""
import socket
import threading

import tls
from clock import Clock


class Stranger:
    """Someone on a port of its own with a certificate of the broker's authority, valid when `shift` says."""

    def __init__(self, broker, folder, shift):
        tls.make_server(broker.folder, variables=Clock(folder, shift).variables)
        self.context = tls.server_context(broker.folder)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(line, server_side=True) as inner:
                    inner.recv(1)
            except OSError:
                line.close()
