"""An agent that asks the policy by the OpenAI API, and the server that answers it."""
