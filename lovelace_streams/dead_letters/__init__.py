"""Dead letters: collect failed items, send them to their topic, read them again, replay them.

In a worker, in this order:
    collector     makes letters of failed items      fail_fast    says when they may be sent
    letter        a letter on its way                headers      its headers
    sender        sends it, settles its items
By hand (`lovelace dlq`):
    reader        reads the letters of a topic       replay       sends letters through the flow again
"""
