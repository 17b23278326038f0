"""Text for calibration, evaluation and recovery.

``prism_llm.data.stdlib`` builds an offline corpus from the installed Python;
``prism_llm.data.sources`` loads it, the standard data sets and local files under one face.
Nothing is imported here, so that ``import prism_llm`` stays light.
"""
