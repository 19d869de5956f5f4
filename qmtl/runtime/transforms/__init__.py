"""The stages between a signal and a portfolio: typed faces over the rules of `qmtl.runtime.execution`, values in and values out."""
