"""The endpoints, one module a family; thin: body in, runtime call, body out."""
