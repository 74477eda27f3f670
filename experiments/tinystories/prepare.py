"""Short stories in the words of small children, from a vocabulary of 10,000 that is learnt from them."""

# The text comes from [prepare] input and is read as one stream: "<|endoftext|>" between two stories is text like any other,
# which the model learns to write, and sample.sample.stop ends a story there. So there are no documents() to write.
