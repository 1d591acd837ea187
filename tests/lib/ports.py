"""Ports of loopback for servers that want a number, and not a socket.

    port = Port()
    …                                    # the server is started, stopped, started again at port.number
    port.release()

A Port is bound and does not listen; whoever sets SO_REUSEADDR, as servers do, may bind beside it and listen. Nobody else is
given the number meanwhile, though tests run side by side and servers go down and come back: a client that finds a stranger there
would deliver to it.
"""
import socket


class Port:
    def __init__(self):
        self.holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.holder.bind(('127.0.0.1', 0))
        self.number = self.holder.getsockname()[1]

    def release(self):
        self.holder.close()
