"""`python -m bert_models`: the commands of `bert_models.cli`."""

from bert_models.cli import main

if __name__ == "__main__":
    main()
